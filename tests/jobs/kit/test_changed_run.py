"""A run goes on with what it was begun with, or not at all."""

import json
from shutil import copytree

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.jobs.kit.parts import Parts
from heldout.jobs.kit.run_folder import open_started, start_run


@pytest.fixture
def started(tiny_model_dir, tmp_path):
    """A run of a model of its own, and the folder of that."""
    model = copytree(tiny_model_dir, tmp_path / "model")
    rows = [Row(i, ({"role": "text", "content": f"Row {i}."},), f"r{i}") for i in range(9)]
    counts = {"train": 3, "validation": 3, "test": 3}
    parts = Parts(rows[:3], rows[3:6], rows[6:], "split", counts, counts, [])
    run = start_run(tmp_path / "run", Recipe(), parts, [], model=str(model), from_scratch="")
    return run, model


def changed(path):
    """One byte in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_run_that_nothing_happened_to_goes_on(started):
    run, model = started
    opened, known = open_started(run.folder, trust_code=False)
    assert (opened, known["model"]) == (run, str(model))
    moved = run.folder.rename(run.folder.with_name("moved"))
    assert open_started(moved, trust_code=False)[0].folder == moved


@pytest.mark.parametrize(
    "name", ["data/train.jsonl", "data/test.jsonl", "recipe.toml", "model.safetensors"]
)
def test_what_has_changed_is_refused_by_name(started, name):
    run, model = started
    if name == "recipe.toml":
        run.write_text(name, Recipe().replace(train={"max_epochs": 3.0}).to_toml())
    else:
        changed(model / name if name.endswith("safetensors") else run.path(name))
    words = f"{model} has changed" if name.endswith("safetensors") else f"{name} has changed"
    with pytest.raises(UserError, match=words):
        open_started(run.folder, trust_code=False)
    run.write_status("complete")  # nothing goes on there
    open_started(run.folder, trust_code=False)


def test_runs_of_earlier_versions_go_on(started):
    run, model = started
    known = run.read_json("environment.json")
    del known["sha256"]
    run.write_text("environment.json", json.dumps(known))
    changed(model / "model.safetensors")
    open_started(run.folder, trust_code=False)
