"""What padded tokens cost is left out or kept small, and changes no result."""

import numpy as np
import pytest
import torch
from tiny_architectures import tiny_model
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue
from heldout.core.row import Row
from heldout.lm.flat_trial import padding
from heldout.lm.layout import current_layout
from heldout.training.length_order import LengthOrder, padded_share
from heldout.training.loop import Schedule, Training, goes_by_length, train
from heldout.training.preflight import check_resources
from heldout.training.windows import WindowDataset


@pytest.fixture
def windows(tiny_tokenizer):
    texts = ["Lists.", "Names refer to objects. " * 6, "A block.", "The with statement. " * 3]
    rows = [
        Row(i, ({"role": "text", "content": f"{texts[i % 4]} {i}"},), f"row-{i}") for i in range(24)
    ]
    return WindowDataset(rows, tiny_tokenizer, 128)


def recipe_of(**train):
    batch = {"batch_size": 8, "micro_batch_size": 4, "warmup_steps": 1}
    return Recipe().replace(train={**batch, "learning_rate": 1e-2, **train})


def losses(mode, windows, model, folder):
    recipe = recipe_of(padding=mode)
    found = []

    def on_evaluate(step, epoch, training_loss, rate):
        found.append(training_loss)
        return Continue(), {}

    schedule = Schedule.of(len(windows), recipe, max_epochs=2)
    train(
        Training(model, windows, recipe, [], 1e-2, schedule, folder),
        on_evaluate=on_evaluate,
        checkpoints=False,
    )
    return found, {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_whole_run_has_the_losses_of_the_padded_one(windows, tiny_model_dir, tmp_path):
    def run(mode):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        return losses(mode, windows, model, tmp_path / mode)

    padded, flat = run("on"), run("off")
    assert current_layout().flat
    assert len(padded[0]) > 2
    assert flat[0] == pytest.approx(padded[0], abs=1e-4)
    for name, weight in padded[1].items():
        torch.testing.assert_close(flat[1][name], weight, atol=1e-3, rtol=1e-3)


def test_the_checks_before_the_first_step_tell_which_way_it_goes(windows, tmp_path):
    def told(name, **train):
        checks = check_resources(tiny_model(name), windows, recipe_of(**train), [], tmp_path, 99)
        return next(check.message for check in checks if check.name == "padding")

    assert told("llama") == "no padded tokens are computed"
    assert told("llama", padding="on") == "rows are padded to one length: train.padding=on"
    assert told("bloom") == (
        "rows are padded to one length: tried, its rows lying one behind the other change the "
        "result; rows of like length are trained together"
    )
    with pytest.raises(UserError, match="is not exact"):
        told("bloom", padding="off")


def test_rows_go_by_length_only_where_the_model_needs_much_padding(windows, tiny_tokenizer):
    even = WindowDataset(
        [Row(i, ({"role": "text", "content": "Lists."},), f"{i}") for i in range(8)],
        tiny_tokenizer,
        128,
    )
    model = tiny_model("bloom")
    assert goes_by_length(model, windows, recipe_of())
    assert not goes_by_length(model, even, recipe_of())
    assert not goes_by_length(model, windows, recipe_of(micro_batch_size=1))
    assert not goes_by_length(tiny_model("llama"), windows, recipe_of())
    with padding("on"):
        assert not goes_by_length(model, windows, recipe_of())


def test_rows_of_like_length_come_together_each_once_and_otherwise_in_each_epoch():
    lengths = np.random.default_rng(1).lognormal(4, 1, 203).astype(int) + 1
    order = LengthOrder(lengths, 8, seed=3)
    first = list(order)
    assert sorted(first) == list(range(203))
    assert list(LengthOrder(lengths, 8, seed=3)) == first
    order.set_epoch(1)
    assert list(order) != first
    assert sorted(order) == list(range(203))
    grouped = [lengths[first[at : at + 8]] for at in range(0, 203, 8)]
    share = 1 - lengths.sum() / sum(part.max() * len(part) for part in grouped)
    assert share < 0.2 * padded_share(lengths, 8)
    assert padded_share(np.full(20, 7), 8) == 0
