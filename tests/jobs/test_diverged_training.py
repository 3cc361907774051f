"""Trainings whose loss stops being a number: one true line, and the best model so far is kept."""

import json
import re
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.cli.main import main
from heldout.core.run import Run
from heldout.jobs.kit.checkpoints import save_model
from heldout.jobs.kit.prepare import tie

SETTINGS = (
    "train.learning_rate=0.9",
    "train.max_grad_norm=0",
    "train.max_epochs=2",
    "data.max_length=48",
    "data.validation_share=0.2",
    "data.test_share=0.2",
    "eval.max_train_rows=8",
)
HYPERFIT = (
    "hyperfit.num_samples=16",
    "hyperfit.context_tokens=8",
    "hyperfit.new_tokens=16",
    "hyperfit.num_contexts=8",
    "hyperfit.num_validation_contexts=8",
)
LINE = r"The training loss is not a finite number at step [12], rows \[[\d, .]+\]: lower train.lear"


@pytest.fixture(scope="module")
def badly_scaled(tiny_model_dir, tmp_path_factory):
    """As the tiny model, with a last norm that a large step makes overflow."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tie(model, False)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e38)
        model.model.norm.weight.mul_(1e-37)
    folder = tmp_path_factory.mktemp("badly_scaled")
    save_model(model, AutoTokenizer.from_pretrained(tiny_model_dir), folder)
    return str(folder)


@pytest.fixture(scope="module")
def rows(english_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    texts = [text.strip()[:200] for text in english_text.split("\n\n") if len(text) > 150][:160]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def diverged(monkeypatch, capsys, *words, settings=()):
    """What is said in the one line of a command that exits with 2."""
    options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    resumes = "--resume" in words
    monkeypatch.setattr(sys, "argv", ["heldout", *words, *([] if resumes else options)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "heldout: " in each]
    return line


def test_fit_keeps_the_best_so_far_and_says_where(
    badly_scaled, rows, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", str(tmp_path))
    out = tmp_path / "run"
    words = ["fit", "--model", badly_scaled, "--data", rows, "--out", str(out), "--recipe", "full"]
    line = diverged(monkeypatch, capsys, *words)
    assert re.search(LINE, line), line
    assert line.endswith(f" {out}/best holds the best checkpoint so far, of step 0.")
    run = Run.open(out)
    assert AutoModelForCausalLM.from_pretrained(run.best)
    assert run.status["state"] == "failed"
    assert run.test_openings == []
    for name in ("report.html", "README.md"):
        text = run.path(name).read_text()
        assert "is not a finite number at step" in text
        assert str(tmp_path) not in text
    assert "last/" not in run.path("README.md").read_text()
    again = diverged(monkeypatch, capsys, "fit", "--resume", str(out))
    assert again == line
    assert [entry["step"] for entry in run.history()] == [0]


def test_hyperfit_and_ensemble_say_it_too(badly_scaled, rows, tmp_path, monkeypatch, capsys):
    words = ["--model", badly_scaled, "--data", rows, "--out"]
    out = tmp_path / "hyperfit"
    line = diverged(monkeypatch, capsys, "hyperfit", *words, str(out), settings=HYPERFIT)
    assert line.endswith(
        f" {out}/early_stopped holds the checkpoint of the lowest held-out loss, of step 0."
    )
    out = tmp_path / "ensemble"
    words = ["ensemble", *words, str(out), "--recipe", "full", "--members", "2"]
    line = diverged(monkeypatch, capsys, *words)
    assert line.endswith(f" {out}/member-0/best holds the best checkpoint so far, of step 0.")
