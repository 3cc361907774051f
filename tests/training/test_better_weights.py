"""The better of an average and the raw weights is measured, recorded and kept."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.lm.nll import document_losses
from heldout.regularizers.bregman_proximal_point import BregmanProximalPoint
from heldout.regularizers.ema import EMA
from heldout.regularizers.swa import SWA
from heldout.training.better_weights import better_weights, chosen_weights
from heldout.training.keeper import Keeper
from heldout.training.steps import Steps

TEXTS = ("The river rises in spring.", "Rain falls on the hills.", "A boat goes down to sea.")


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


@pytest.fixture
def measure(model, tiny_model_dir):
    """Losses of the model as it is; ``calls`` counts how often they were taken."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    rows = [
        Row(index=i, group=str(i), messages=({"role": "text", "content": text},))
        for i, text in enumerate(TEXTS)
    ]

    def measured(part="validation"):
        measured.calls += 1
        return document_losses(model, rows, tokenizer, max_length=48, batch_size=8)

    measured.calls = 0
    measured.ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    return measured


def take_step(model, measure, regularizers, number=0, total=1):
    steps = Steps(model, regularizers, total_steps=total, evaluates=True)
    steps.step = number
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps.gradient([{"input_ids": measure.ids, "labels": measure.ids}])
    optimizer.step()
    steps.done(optimizer)


def throw_off(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))


@pytest.mark.parametrize("kept", ["raw", "average"])
def test_the_better_weights_are_kept_and_the_history_says_which(kept, model, measure, tmp_path):
    ema = EMA(decay=0.999)
    take_step(model, measure, [ema], number=100)  # so late that the average hardly moves
    if kept == "average":
        throw_off(model)
    losses, norms = {}, {}
    for weights in ("raw", "average"):
        with chosen_weights(model, [ema], weights):
            losses[weights] = measure().nats_per_token
            norms[weights] = model.model.norm.weight.detach().clone()
    other = "average" if kept == "raw" else "raw"
    assert losses[kept] < losses[other]
    run = Run.create(tmp_path / "run", Recipe())
    keeper = Keeper(
        run, measure=measure, save=model.save_pretrained, model=model, regularizers=[ema]
    )
    keeper.evaluate(1, 0.1, None, 0.5)
    saved = load_file(run.best / "model.safetensors")
    assert torch.equal(saved["model.norm.weight"], norms[kept])
    (entry,) = run.history()
    assert entry["weights"] == kept
    assert entry["validation_nll"] == pytest.approx(losses[kept])
    assert entry["train_nll"] == pytest.approx(losses[kept])
    assert entry["other_nll"] == pytest.approx(losses[other])
    keeper.restore(1)
    (found,) = keeper.evaluations
    assert {name: each.nats_per_token for name, each in found.by_weights.items()} == losses


@pytest.mark.parametrize(
    "regularizers",
    [(), (BregmanProximalPoint(),), (SWA(start=0.5),)],
    ids=["none", "an average that is not measured", "before its start"],
)
def test_without_an_average_each_evaluation_is_one_measuring(regularizers, model, measure):
    take_step(model, measure, regularizers, number=1, total=10)
    with better_weights(model, regularizers, measure, 1, 0.1) as found:
        pass
    assert (measure.calls, found.weights, found.other) == (1, "raw", None)


def test_before_training_there_is_no_average(model, measure):
    with better_weights(model, [EMA()], measure, 0, 0.0) as found:
        pass
    assert (measure.calls, found.weights) == (1, "raw")
