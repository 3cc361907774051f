"""Regularizers that work on checkpoints, inside the main job."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from heldout.core.errors import Interrupted, UserError
from heldout.core.progress import Progress
from heldout.jobs.fitting.fit import dry_run, fit, resume
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses

FAST = (
    "train.max_epochs=3",
    "train.checkpoint_minutes=0",
    "eval.per_epoch=2",
    "eval.max_train_rows=20",
    "eval.num_samples=1",
    "eval.max_new_tokens=4",
    "data.max_length=48",
    "regularizers.early_stopping=false",
)


def weights(folder):
    return load_file(folder / "model.safetensors")


def validation_loss(run, folder):
    loaded = load_model(str(folder), device="cpu")
    rows = list(run.read_rows("validation"))
    return document_losses(
        loaded.model, rows, loaded.tokenizer, max_length=48, batch_size=16
    ).nats_per_token


class StopAt(Progress):
    """Asks to stop after some steps, as Ctrl-C does."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, steps=1, figures=""):
        self.left -= steps
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_rolls_back_and_trains_on_with_a_lower_rate(tiny_model_dir, data, tmp_path):
    """A rate so high that the held-out loss soon rises."""
    settings = [*FAST, "train.learning_rate=0.05", "regularizers.rollback.patience=1"]
    result = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    history = result.run.history()
    back = [entry for entry in history if entry["rolled_back"]]
    assert back, [entry["validation_nll"] for entry in history]
    rates = [entry["learning_rate"] for entry in history[1:]]
    first = history.index(back[0])
    assert rates[first] == pytest.approx(0.5 * rates[first - 1])
    best = min(entry["validation_nll"] for entry in history)
    assert validation_loss(result.run, result.best) == pytest.approx(best, abs=1e-5)


@pytest.mark.slow
def test_an_average_is_what_is_measured_and_saved(tiny_model_dir, data, tmp_path):
    settings = [*FAST, "train.learning_rate=3e-3", "regularizers.ema.decay=0.9"]
    result = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    run = result.run
    assert validation_loss(run, run.last) == pytest.approx(
        run.losses("last", "validation").nats_per_token, abs=1e-5
    )
    assert validation_loss(run, run.best) == pytest.approx(
        run.losses("best", "validation").nats_per_token, abs=1e-5
    )
    plain = fit(
        str(tiny_model_dir),
        data,
        out=tmp_path / "b",
        recipe="full",
        settings=[*FAST, "train.learning_rate=3e-3"],
    )
    first, second = weights(run.last), weights(plain.run.last)
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_an_interrupted_average_goes_on_as_if_nothing_had_been(tiny_model_dir, data, tmp_path):
    settings = [*FAST, "train.learning_rate=3e-3", "regularizers.ema.decay=0.9"]
    whole = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    steps = whole.run.history()[-1]["step"]
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        fit(
            str(tiny_model_dir),
            data,
            out=tmp_path / "b",
            recipe="full",
            settings=settings,
            progress=StopAt(steps // 2),
        )
    again = resume(tmp_path / "b")
    for name, value in weights(whole.run.last).items():
        assert torch.equal(value, weights(again.run.last)[name]), name
    assert [e["validation_nll"] for e in whole.run.history()] == [
        e["validation_nll"] for e in again.run.history()
    ]


@pytest.mark.slow
def test_wise_ft_is_never_worse_on_validation(tiny_model_dir, data, tmp_path):
    settings = [*FAST, "train.learning_rate=0.02", "regularizers.wise_ft=true"]
    result = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    run = result.run
    figures = run.read_json("result.json")["finish"]
    assert 0 <= figures["wise_ft_alpha"] <= 1
    reached = run.losses("best", "validation").nats_per_token
    assert reached <= min(entry["validation_nll"] for entry in run.history()) + 1e-9
    assert validation_loss(run, run.best) == pytest.approx(reached, abs=1e-5)


@pytest.mark.parametrize("name", ["rollback", "wise_ft"])
def test_folds_are_refused_by_what_needs_a_validation_part(
    name, tiny_model_dir, topics_text, tmp_path
):
    path = tmp_path / "few.jsonl"
    texts = [" ".join(p.split())[:100] for p in topics_text.split("\n\n") if len(p) > 100][:24]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings = [*FAST, "train.learning_rate=3e-3", f"regularizers.{name}=true"]
    with pytest.raises(UserError, match=f"regularizers.{name} chooses by a validation part"):
        dry_run(str(tiny_model_dir), str(path), recipe="full", settings=settings)


@pytest.mark.slow
def test_every_regularizer_of_a_step_fits(tiny_model_dir, data, tmp_path):
    """A combination from the catalog, its cost told, through the whole job."""
    settings = [
        *FAST,
        "train.learning_rate=3e-3",
        "train.max_epochs=1",
        "train.micro_batch_size=4",
        "regularizers.dropout.hidden=0.1",
        "regularizers.r_drop=true",
        "regularizers.sam=true",
        "regularizers.goldfish=true",
        "regularizers.neftune=true",
        "regularizers.label_smoothing.amount=0.1",
    ]
    plan = dry_run(str(tiny_model_dir), data, recipe="full", settings=settings)
    assert "4 forwards, 4 backwards per step" in plan.step_cost
    result = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    losses = [entry["validation_nll"] for entry in result.run.history()]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
