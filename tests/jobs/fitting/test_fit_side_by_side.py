"""A run whose trainings go side by side finds what it finds with one after the other."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from heldout.core.run import Run
from heldout.jobs.fitting.fit import dry_run, fit, resume

FAST = (
    "train.learning_rate=3e-3",
    "train.max_epochs=2",
    "train.checkpoint_minutes=0",
    "train.threads=1",
    "control.fixed_epochs=3",
    "eval.per_epoch=1",
    "eval.max_train_rows=8",
    "eval.max_recital_rows=8",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "data.max_length=48",
)
BOTH = ("train.side_by_side=2",)


@pytest.fixture(scope="module")
def one_by_one(tiny_model_dir, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    return fit(str(tiny_model_dir), data, out=out, recipe="full", settings=FAST).run


def figures(run):
    return run.read_json("result.json")["figures"]


def same(run, other):
    assert figures(run) == figures(other)
    for name in ("history.jsonl", "control_history.jsonl"):
        assert run.history(name) == other.history(name)
    weights = [each.path("fixed_epochs/model.safetensors").read_bytes() for each in (run, other)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_control_beside_the_main_training(one_by_one, tiny_model_dir, data, tmp_path):
    run = fit(
        str(tiny_model_dir), data, out=tmp_path / "run", recipe="full", settings=[*FAST, *BOTH]
    ).run
    same(run, one_by_one)
    known = run.read_json("environment.json")
    assert (known["side_by_side"], known["threads"]) == (2, 1)
    assert "control without regularization" in run.path("logs/beside-1.log").read_text()
    assert not one_by_one.path("logs").exists()
    assert len(run.test_openings) == 1


def begun(tiny_model_dir, data, folder):
    """The same run in a process of its own, once its control has been measured twice."""
    command = [sys.executable, "-m", "heldout", "fit", "--model", str(tiny_model_dir)]
    command += ["--data", data, "--out", str(folder), "--recipe", "full"]
    for setting in (*FAST, *BOTH):
        command += ["--set", setting]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 240
    history = folder / "control_history.jsonl"
    while process.poll() is None and time.monotonic() < end:
        if history.exists() and history.read_text().count("\n") >= 2:
            break
        time.sleep(0.005)
    return process


@pytest.mark.slow
def test_a_killed_control_ends_the_run_in_one_line(one_by_one, tiny_model_dir, data, tmp_path):
    process = begun(tiny_model_dir, data, tmp_path / "run")
    control = psutil.Process(process.pid).children()
    assert len(control) == 1
    control[0].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(
        "heldout: control without regularization: its process ended with SIGKILL"
    )
    assert "Traceback" not in errors
    run = Run.open(tmp_path / "run")
    assert run.status["state"] == "failed"
    same(resume(run.folder).run, one_by_one)


@pytest.mark.slow
def test_ctrl_c_stops_both_and_the_run_goes_on(one_by_one, tiny_model_dir, data, tmp_path):
    process = begun(tiny_model_dir, data, tmp_path / "run")
    control = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert len(control) == 1
    assert not control[0].is_running()
    run = Run.open(tmp_path / "run")
    assert run.status["state"] == "interrupted"
    resumed = resume(run.folder).run
    assert figures(resumed) == figures(one_by_one)


@pytest.mark.slow
def test_folds_side_by_side(tiny_model_dir, data, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(Path(data).read_text().splitlines()[:40]))
    runs = []
    for name, settings in (("one", ()), ("both", BOTH)):
        options = [each for each in FAST if not each.startswith("control")]
        options += ["eval.folds=3", "train.max_epochs=1", *settings]
        found = fit(
            str(tiny_model_dir), str(few), out=tmp_path / name, recipe="full", settings=options
        )
        runs.append(found.run)
    assert figures(runs[0]) == figures(runs[1])
    assert runs[0].read_json("cross_validation.json") == runs[1].read_json("cross_validation.json")
    assert "of 3" in runs[1].path("logs/beside-1.log").read_text()


def test_the_plan_tells_what_goes_side_by_side(tiny_model_dir, data, tmp_path):
    def words(*settings):
        plan = dry_run(
            str(tiny_model_dir),
            data,
            recipe="full",
            settings=[*FAST, *settings],
            out=tmp_path / "run",
        )
        return {check.name: check.message for check in plan.checks}.get("side by side")

    assert words(*BOTH).startswith("up to 2 trainings at once; threads of each: 1;")
    assert words().startswith("one training at a time"), "seconds of work are not worth a process"
    assert words("control.fixed_epochs=0") is None
