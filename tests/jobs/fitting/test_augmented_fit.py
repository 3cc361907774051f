"""Augmentation inside `heldout fit`, and written out."""

import json
import re
import shutil

import pytest

import heldout
from heldout.core.errors import Interrupted, UserError
from heldout.core.progress import Progress
from heldout.core.row import Row
from heldout.jobs.augmented import augmented, write_rows
from heldout.jobs.fitting.fit import dry_run, fit, resume

RECIPE = """
name = "augmented"
[data]
max_length = 64
key_facts = ["\\\\d+"]
[model]
method = "full"
[train]
learning_rate = 1e-3
max_epochs = 3
checkpoint_minutes = 0
[eval]
per_epoch = 2
max_recital_rows = 8
num_samples = 1
[augment.word_dropout]
schedule = "rise"
rate = 0.3
[augment.masking]
[augment.replay]
data = {general!r}
share = 0.25
"""


@pytest.fixture
def files(english_text, tmp_path):
    """Rows, general rows of which some are held out by the split, and a recipe."""
    texts = [" ".join(p.split())[:60] for p in english_text.split("\n\n") if len(p) > 60]
    texts = list(dict.fromkeys(texts))
    own, general = texts[:126], texts[60:220]
    for name, some in (("own", own), ("general", general)):
        lines = (json.dumps({"text": text}) for text in some)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("{general!r}", json.dumps(str(tmp_path / "general.jsonl"))))
    return tmp_path / "own.jsonl", recipe


class StopAt(Progress):
    """Interrupts training after some steps."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, steps=1, message=""):
        self.left -= steps
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_run_measures_mixes_and_reports(tiny_model_dir, files, tmp_path):
    data, recipe = files
    result = fit(str(tiny_model_dir), str(data), recipe=recipe, out=tmp_path / "run")
    run = result.run
    parts = {part: list(run.read_rows(part)) for part in ("train", "validation")}
    parts["test"] = list(run.open_test("a test"))
    general = list(run.read_rows("replay"))
    assert {row.source for row in general} == {"general"}
    held_out = {row.text for part in ("validation", "test") for row in parts[part]}
    assert not held_out & {row.text for row in general}
    reasons = {entry["reason"] for entry in run.read_json("data.json")["dropped"]}
    assert any(reason.startswith("replay row that repeats") for reason in reasons)
    followed = run.losses("best", "train")
    assert len(followed) <= len(parts["train"]), "rows of the general source are never measured"
    found = {
        entry["name"]: {one["name"]: one for one in entry["measurements"]}
        for entry in run.read_json("augmentation.json")["augmentations"]
    }
    assert list(found) == ["word_dropout", "masking", "replay"]
    dropped = found["word_dropout"]
    assert 0.2 < dropped["unchanged_rows"]["value"] < 0.8
    assert dropped["variant_nll"]["contrasts"]["originals"]["interval"]["low"] > -3
    assert dropped["similarity"]["reason"] == "no eval.embedding_model is named"
    page = run.path("report.html").read_text(encoding="utf-8")
    assert "What augmentation changes" in page
    assert "Word dropout" in page


@pytest.mark.slow
def test_a_run_goes_on_after_a_kill_to_the_same_numbers(tiny_model_dir, files, tmp_path):
    data, recipe = files
    fit(str(tiny_model_dir), str(data), recipe=recipe, out=tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        fit(
            str(tiny_model_dir), str(data), recipe=recipe, out=tmp_path / "cut", progress=StopAt(22)
        )
    resume(tmp_path / "cut")
    histories = [
        [entry["validation_nll"] for entry in map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "whole/history.jsonl", tmp_path / "cut/history.jsonl")
    ]
    assert histories[0] == histories[1]
    shutil.rmtree(tmp_path / "cut")


def test_the_plan_says_what_augmentation_does(tiny_model_dir, files):
    data, recipe = files
    plan = dry_run(str(tiny_model_dir), str(data), recipe=recipe)
    said = {check.name: check.message for check in plan.checks}
    assert "changes" in said["augmentation word dropout"]
    assert "rows of other sources" in said["augmentation replay"]
    with pytest.raises(UserError, match=r"Replay\(data=...\) must name"):
        dry_run(str(tiny_model_dir), str(data), recipe="full", settings=["augment.replay=true"])


ROWS = [
    Row(n, ({"role": "text", "content": f"The {n} brown foxes run over the hill."},), f"g{n}")
    for n in range(4)
]


def test_variants_written_out(tmp_path):
    found = augmented(ROWS, [heldout.WordDropout(rate=0.5)], copies=3, key_facts=[r"\d+"])
    assert found[:4] == ROWS
    assert len({row.index for row in found}) == len(found) > 6
    assert len({row.text for row in found}) == len(found), "none twice"
    for row in found[4:]:
        (number,) = re.findall(r"\d+", row.text)
        assert row.group == f"g{number}"
    again = augmented(ROWS, [heldout.WordDropout(rate=0.5)], copies=3, key_facts=[r"\d+"])
    assert again == found
    path = write_rows(found, tmp_path / "rows.jsonl")
    assert [row.text for row in heldout.augmented(path, [heldout.WordDropout(rate=0.0)])] == [
        row.text for row in found
    ]
    with pytest.raises(UserError, match="is there already"):
        write_rows(found, path)
    with pytest.raises(UserError, match="nothing to write out"):
        augmented(ROWS, [heldout.Masking()])
    with pytest.raises(UserError, match=r"augmented\(model=...\) must name"):
        augmented(ROWS, [heldout.ContextualWords()])
    with pytest.raises(UserError, match="must be 1 or more"):
        augmented(ROWS, [], copies=0)
