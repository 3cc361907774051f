"""Trackers hear each evaluation of a run, and its figures and verdicts at the end."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from heldout.core.errors import UserError
from heldout.core.run import Run
from heldout.core.verdict import COLORS, VERDICTS
from heldout.training.trackers import PACKAGES, TrackerRun, check_trackers, tell_end

HAS_TRACKIO = importlib.util.find_spec("trackio") is not None  # 0.43 asks for an older pillow
SETTINGS = (
    "train.learning_rate=3e-3",
    "train.max_epochs=2",
    "eval.max_train_rows=20",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "data.max_length=48",
)


@pytest.fixture(scope="module")
def told(tiny_model_dir, data, tmp_path_factory):
    """A run with trackers by the command line, what it printed, and the folder of trackio."""
    folder = tmp_path_factory.mktemp("told")
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    settings += ["--recipe", "full", "--tracker", "tensorboard"]
    settings += ["--tracker", "trackio"] if HAS_TRACKIO else []
    command = ["heldout", "fit", "-m", str(tiny_model_dir), "-d", data, "--out", "run", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *settings],
        cwd=folder,
        env=os.environ | {"TRACKIO_DIR": str(folder / "trackio")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Run.open(folder / "run"), done.stdout, folder / "trackio"


@pytest.mark.slow
def test_event_files_hold_evaluations_figures_and_verdicts(told):
    run, printed, _ = told
    json.loads(printed)  # nothing but the result
    events = EventAccumulator(str(run.path("tensorboard")))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/validation_nll")]
    assert losses == pytest.approx([entry["validation_nll"] for entry in run.history()[1:]])
    figures = run.read_json("result.json")["figures"]
    (best,) = events.Scalars("heldout/test_nll_best")
    assert best.value == pytest.approx(figures["test_nll_best"])
    verdicts = run.read_json("verdict.json")["verdicts"]
    for name in VERDICTS:
        (light,) = events.Scalars(f"verdict/{name}")
        assert COLORS[int(light.value)] == verdicts[name]["light"]
        (words,) = events.Tensors(f"verdict/{name}/words/text_summary")
        assert words.tensor_proto.string_val[0].decode() == verdicts[name]["sentence"]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRACKIO, reason="pip install trackio")
def test_trackio_holds_all_of_it_as_one_run(told):
    run, _, folder = told
    with closing(sqlite3.connect(folder / "heldout.db")) as store:
        rows = store.execute("select run_name, metrics from metrics order by id").fetchall()
    assert {name for name, _ in rows} == {TrackerRun.of(run.folder).name}
    logged = [json.loads(metrics) for _, metrics in rows]
    losses = [entry[k] for entry in logged if (k := "train/validation_nll") in entry]
    assert losses == pytest.approx([entry["validation_nll"] for entry in run.history()[1:]])
    verdicts = run.read_json("verdict.json")
    assert logged[-1]["headline"] == verdicts["headline"]
    assert COLORS[logged[-1]["verdict/fit"]] == verdicts["verdicts"]["fit"]["light"]


def test_the_end_is_told_once(tmp_path):
    def tell(value):
        tell_end(
            ["tensorboard"], tmp_path, step=3, figures={"loss": value}, sentences={"said": "it"}
        )

    tell(1.0)
    tell(2.0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 1.0)]
    tell_end([], tmp_path / "none", step=3, figures={}, sentences={})
    assert not (tmp_path / "none").exists()


def test_a_tracker_that_is_not_there_is_named_with_what_to_install():
    with pytest.raises(UserError, match=r"'wandbb' is no tracker .* use tensorboard, trackio, wa"):
        check_trackers(["wandbb"])
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    for name in missing:
        with pytest.raises(UserError, match=rf"report_to={name} needs .* `pip install {name}`"):
            check_trackers([name])
    check_trackers(["tensorboard"])
