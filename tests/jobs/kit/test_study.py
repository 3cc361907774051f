"""A search by a sampler of Optuna inside a run, killed and gone on with, on the embedded model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources

import pytest
from jsonschema import Draft202012Validator

from heldout.core.errors import Interrupted, UserError
from heldout.core.progress import Progress
from heldout.core.run import Run
from heldout.jobs.fitting.fit import fit, resume
from heldout.report.page import render_report
from heldout.search.recipe_point import with_values

pytestmark = pytest.mark.slow
MODEL = "package:heldout"
SETTINGS = (
    "train.max_epochs=2",
    "train.threads=1",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "eval.max_train_rows=10",
    "eval.max_recital_rows=10",
    "data.max_length=32",
    "train.learning_rate=1e-3",
    "search.sampler=tpe",
    "search.max_trials=4",
    "search.repeats=1",
    "search.grace_epochs=1",
    "search.ranges.train.learning_rate={low=1e-6, high=2e-3, log=true}",
    "search.ranges.regularizers.ema.used=[true, false]",
)


class _StopsBeforeTraining(Progress):
    def stage(self, name, total=0):
        if name == "training":
            raise Interrupted
        return super().stage(name, total)


@pytest.fixture(scope="module")
def data(english_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prose.jsonl"
    found = [" ".join(p.split())[:100] for p in english_text.split("\n\n") if len(p) > 140]
    path.write_text("\n".join(json.dumps({"text": text}) for text in found[:210]))
    return str(path)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    settings = [*SETTINGS, "train.side_by_side=1"]
    return fit(MODEL, data, out=out, recipe="full", settings=settings).run


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """Two trials at once, killed by SIGKILL once the first has ended."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    settings = [*SETTINGS, "train.side_by_side=2"]
    command = [sys.executable, "-m", "heldout", "fit", "--model", MODEL, "--data", data]
    command += ["--recipe", "full", "--out", str(out)]
    command += [word for setting in settings for word in ("--set", setting)]
    with (out.parent / "log.txt").open("w") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
        deadline = time.monotonic() + 300
        while job.poll() is None and not (out / "checkpoints/search/trial-001.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert job.returncode == -signal.SIGKILL, (out.parent / "log.txt").read_text()
    return out


def without_seconds(found):
    trials = [{**each, "seconds": None} for each in found["trials"]]
    return {**found, "trials": trials}


def test_the_best_point_is_trained_and_the_run_tells_how_often_it_looked(whole):
    found = whole.read_json("tuning.json")
    schema = resources.files("heldout.core") / "schemas" / "tuning.json"
    Draft202012Validator(json.loads(schema.read_text())).validate(found)
    own = found["trials"][0]
    assert own["point"] == {"train.learning_rate": 1e-3, "regularizers.ema.used": True}
    assert 4 <= len(found["trials"]) <= 5
    assert found["loss"] <= own["loss"] or len(found["trials"]) == 5
    assert whole.recipe == with_values(whole.recipe, found["chosen"])
    assert not whole.recipe.search.ranges
    chosen = [t for t in found["trials"] if t["point"] == found["chosen"] and t["seed"] == 0]
    lowest = min(entry["validation_nll"] for entry in whole.history())
    assert lowest == pytest.approx(chosen[0]["loss"], rel=1e-6), "a trial is what the run reaches"
    looks = whole.read_json("result.json")["validation_looks"]
    assert looks == {
        "trainings": 1 + len(found["trials"]),
        "evaluations": sum(1 + (e["other_nll"] is not None) for e in whole.history())
        + sum(t["evaluations"] for t in found["trials"]),
    }
    page = render_report([whole])
    assert "The validation part chose among" in page
    assert "Other settings that were tried" in page


def test_two_at_once_killed_and_gone_on_with_is_the_search_of_one_process(whole, killed):
    run = Run.open(killed)
    assert not run.path("tuning.json").exists() or run.read_json("tuning.json")["chosen"] is None
    rest = killed.with_name("rest")
    shutil.copytree(killed, rest)
    with pytest.raises(Interrupted):
        resume(rest, progress=_StopsBeforeTraining())
    found = Run.open(rest).read_json("tuning.json")
    assert without_seconds(found) == without_seconds(whole.read_json("tuning.json"))


def test_the_best_so_far_can_be_taken(killed):
    run = Run.open(killed)
    with pytest.raises(Interrupted):
        resume(killed, end_search=True, progress=_StopsBeforeTraining())
    found = run.read_json("tuning.json")
    assert len(found["trials"]) <= 2
    assert found["loss"] == min(t["loss"] for t in found["trials"])
    with pytest.raises(UserError, match="has no search that goes on"):
        resume(killed, end_search=True)


def test_what_a_part_is_worth_is_told_and_what_does_not_pay_is_dropped(data, tmp_path):
    """A decay of nothing cannot pay."""
    settings = [
        *SETTINGS[:8],
        "train.max_epochs=1",
        "search.ablate=drop",
        "regularizers.weight_decay.rate=0",
    ]
    with pytest.raises(Interrupted):
        fit(
            MODEL,
            data,
            out=tmp_path / "run",
            recipe="full",
            settings=settings,
            progress=_StopsBeforeTraining(),
        )
    run = Run.open(tmp_path / "run")
    found = run.read_json("ablation.json")
    schema = resources.files("heldout.core") / "schemas" / "ablation.json"
    Draft202012Validator(json.loads(schema.read_text())).validate(found)
    by_part = {entry["part"]: entry for entry in found["parts"]}
    assert by_part["regularizers.weight_decay"]["difference"] == 0
    assert "regularizers.weight_decay" in found["dropped"]
    assert found["not_tried"] == ["regularizers.early_stopping"]
    assert "weight_decay" not in run.recipe.regularizers
    assert "early_stopping" in run.recipe.regularizers
    assert run.recipe.search.ablate == "off"
    assert "Each part of the recipe left out" in render_report([run])
