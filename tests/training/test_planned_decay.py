"""A decay that is said as a shrink takes that much from a weight, whatever rate and schedule."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.regularizer import Continue
from heldout.core.row import Row
from heldout.jobs.kit.prepare import load_prepared, regularizers_of
from heldout.jobs.kit.target import Target
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.loop import Schedule, Training, train
from heldout.training.planned_decay import PlannedDecay, decay_in_words
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

UNSEEN = "<|im_start|>"  # a token that no row has: its embedding gets no gradient


def kept_share(model_dir, folder, *settings, epochs=None, rate=3e-3):
    """What training leaves of a weight without a gradient, and what was planned."""
    common = ("train.max_epochs=10", "train.warmup_steps=4", "model.tie_weights=false")
    shrink = "regularizers.weight_decay={shrink_per_epoch=0.04}"
    recipe = load_recipe("plain", ["model.method=full", *common, shrink, *settings])
    model, tokenizer = load_prepared(Target.of(str(model_dir), ""), recipe)
    rows = [
        Row(index=i, group=str(i), messages=({"role": "text", "content": f"Rain {i} falls."},))
        for i in range(16)
    ]
    windows = WindowDataset(rows, tokenizer, 32)
    row = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(UNSEEN)]
    before = row.detach().clone()
    regularizers = regularizers_of(recipe)
    schedule = Schedule.of(len(windows), recipe, max_epochs=epochs)
    train(
        Training(model, windows, recipe, regularizers, rate, schedule, folder),
        on_evaluate=lambda *_: (Continue(), {}),
        checkpoints=False,
    )
    row = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(UNSEEN)]
    planned = PlannedDecay.of(
        regularizers, recipe, rate, Schedule.of(len(windows), recipe).max_steps
    )
    return float((row.detach() / before).median()), planned, schedule.max_steps


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("train.schedule=linear",),
        pytest.param(("train.schedule=cosine", "train.warmup_steps=0"), marks=pytest.mark.slow),
        ("train.optimizer=schedule_free",),
    ],
    ids=["constant", "linear", "cosine", "schedule-free"],
)
def test_a_weight_without_a_gradient_shrinks_as_said(settings, tiny_model_dir, tmp_path):
    share, planned, _ = kept_share(tiny_model_dir, tmp_path, *settings)
    assert planned.shrink == pytest.approx(0.4)
    assert math.log(share) == pytest.approx(-0.4, rel=0.03)


def test_a_shorter_training_decays_as_the_planned_one_would(tiny_model_dir, tmp_path):
    share, planned, steps = kept_share(tiny_model_dir, tmp_path, epochs=4, rate=1e-3)
    assert 0.1 < planned.until(steps) < 0.2
    assert math.log(share) == pytest.approx(-planned.until(steps), rel=0.03)


def test_what_a_plan_says():
    plan = {"learning_rate": 1e-3, "warmup_steps": 0, "max_epochs": 10}
    recipe = Recipe().replace(train=plan)
    said = decay_in_words([WeightDecay(shrink_per_epoch=0.04)], recipe, 100)
    assert said == (
        "4 at learning rate 0.001: over 100 planned steps a weight without a gradient shrinks to "
        "67 %"
    )
    assert "100 planned steps" in decay_in_words([WeightDecay()], recipe, 100)
    searched = recipe.replace(train={"learning_rate": None})
    said = decay_in_words([WeightDecay(shrink_per_epoch=0.04)], searched, 100)
    assert "67 %, at whatever learning rate" in said
    assert decay_in_words([WeightDecay()], searched, 100) is None
    assert decay_in_words([], recipe, 100) is None


def test_bad_values(tiny_model_dir):
    with pytest.raises(UserError, match=r"rate=0.1, shrink_per_epoch=0.04\) says twice"):
        WeightDecay(rate=0.1, shrink_per_epoch=0.04)
    with pytest.raises(UserError, match=r"shrink_per_epoch=...\) must be 0 or more, got -1"):
        WeightDecay(shrink_per_epoch=-1.0)
    for text in ("much", True, math.nan):
        with pytest.raises(
            UserError, match=r"weight_decay\.shrink_per_epoch must be a finite number"
        ):
            build("regularizer", "weight_decay", {"shrink_per_epoch": text})
    with pytest.raises(UserError, match="more than a weight in one of the 2 planned steps"):
        WeightDecay(shrink_per_epoch=3.0).over([1e-3, 1e-3], 1)
    for shrink in (0.0, 0.4):  # of a step that is warm-up alone
        assert WeightDecay(shrink_per_epoch=shrink).over([0.0], 1).decay == 0
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with pytest.raises(UserError, match="give rate, which is shrink_per_epoch divided by"):
        Steps(model, [WeightDecay(shrink_per_epoch=0.4)])
    steps = Steps(model, [WeightDecay(shrink_per_epoch=0.4)], recipe=Recipe())
    with pytest.raises(UserError, match="give rate, which is shrink_per_epoch divided by"):
        steps.parameter_groups(1e-3)
    adapted, _ = load_prepared(Target.of(str(tiny_model_dir), ""), Recipe())
    with pytest.raises(UserError, match=r"pulls the model to its base instead.*l2_penalty"):
        WeightDecay(shrink_per_epoch=0.4).check(adapted, Recipe())
