"""Every recipe that is shipped trains, and says truly what it costs and what was measured."""

import json
import re
from pathlib import Path

import pytest

from heldout.core.discovery import header_notes, list_entries
from heldout.core.recipe import load_recipe, recipe_names
from heldout.jobs.fitting.fit import fit
from heldout.jobs.kit.prepare import regularizers_of
from heldout.training.compatible import check_together
from heldout.training.cost import total_cost

RECORDS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
TOLD = {entry.name: entry.notes for entry in list_entries() if entry.kind == "recipe"}
WITH_NOTES = [name for name, notes in TOLD.items() if notes]
NAMED = ("basic", "enhanced", "advanced", "ample", "limited", "cross_domain")
GAIN = re.compile(r"([+-]\.\d{3}) \[(-?\.\d{3}), (-?\.\d{3})\]")

TWO_STEPS = (
    "train.max_epochs=.15",
    "train.learning_rate=1e-3",
    "train.warmup_steps=1",
    "data.group=",
    "data.max_length=48",
    "eval.per_epoch=14",
    "eval.num_samples=0",
    "eval.max_train_rows=4",
    "eval.max_recital_rows=4",
    "control.fixed_epochs=0",
    "search.ranges={}",
)
SEARCHED = (
    "search.ranges={regularizers.smart.used=[true, false]}",
    "search.ranges.regularizers.weight_decay.shrink_per_epoch=[0.1, 0.2]",
    "search.max_trials=2",
    "search.repeats=0",
)
AS_TOLD = [
    ("enhanced", ("model.method=lora",)),
    ("advanced", ("model.method=lora", "regularizers.mixout=false")),
    ("cross_domain", ("model.method=full",)),
    ("ample", SEARCHED),
]


def figures_of(record):
    (path,) = RECORDS.glob(f"{record}_cpu-*.json")
    return json.loads(path.read_text(encoding="utf-8"))["figures"]


def in_thousandths(text):
    return round(1000 * float(text))


def test_a_header_is_read_note_by_note():
    text = "# For: one\n#   and all.\n# Cost: 1.\n#   (a: b)\n\n# no: note\nname = 1\n# nor: this\n"
    assert header_notes(text) == {"For": "one and all.", "Cost": "1. (a: b)"}
    assert header_notes('name = "x"\n# For: none\n') == {}


@pytest.mark.parametrize("name", NAMED)
def test_for_whom_at_what_cost_and_what_was_measured(name):
    assert list(TOLD[name]) == ["For", "Cost", "Effect"]
    assert "not measured yet" in TOLD[name]["Effect"]


@pytest.mark.parametrize("name", WITH_NOTES)
def test_passes_are_those_of_its_parts(name):
    recipe = load_recipe(name)
    regularizers = regularizers_of(recipe)
    check_together(regularizers)
    said = re.search(r"(\d) forwards? and (\d) backwards? a step", TOLD[name]["Cost"])
    counted = re.search(r": (\d+) forwards?, (\d+) backwards? per step", total_cost(regularizers))
    again = int(recipe.model.gradient_checkpointing)  # activations that are computed twice
    assert int(said[1]) == int(counted[1]) + again
    assert said[2] == counted[2]


@pytest.mark.parametrize("name", WITH_NOTES)
def test_gains_are_those_of_a_record(name):
    effect = TOLD[name]["Effect"]
    records = [name for name in re.findall(r"\((\w+)\)", effect) if name != "WiSE"]
    figures = [figures_of(record) for record in records]
    assert figures, "every effect names its record"
    held = {
        tuple(round(1000 * found.get(key + end, 9.0)) for end in ("", "_low", "_high"))
        for found in figures
        for key in found
    }
    for gain in GAIN.findall(effect):
        assert tuple(map(in_thousandths, gain)) in held, gain


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [*((name, ()) for name in recipe_names()), *AS_TOLD])
def test_every_ready_recipe_trains(name, settings, data, tmp_path):
    run = fit(
        "package:heldout", data, out=tmp_path / "run", recipe=name, settings=[*TWO_STEPS, *settings]
    ).run
    assert run.read_json("result.json")["last_step"] >= 2
    assert len(run.history()) >= 2
