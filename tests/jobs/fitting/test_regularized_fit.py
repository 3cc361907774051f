"""Regularizers that work on checkpoints, inside the main job."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from heldout.core.errors import Interrupted, UserError
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.regularizer import Evaluation
from heldout.jobs.fitting.cross_validate import pooled
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
    """A rate so high that the held-out loss soon hardly falls."""
    alone = ["regularizers.ema=false", "regularizers.rollback={patience=1, min_delta=0.05}"]
    settings = [*FAST, "train.learning_rate=0.05", *alone]
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
def test_the_better_of_an_average_and_its_weights_is_saved(tiny_model_dir, data, tmp_path):
    settings = [*FAST, "train.learning_rate=3e-3", "regularizers.ema.decay=0.9"]
    result = fit(str(tiny_model_dir), data, out=tmp_path / "a", recipe="full", settings=settings)
    run = result.run
    best = min(run.history(), key=lambda entry: entry["validation_nll"])
    assert run.read_json("result.json")["best_weights"] == best["weights"]
    for entry in run.history()[1:]:
        assert entry["validation_nll"] <= entry["other_nll"]
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
    is_raw = all(torch.equal(first[name], second[name]) for name in first)
    assert run.history()[-1]["weights"] == ("raw" if is_raw else "average")


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


def test_folds_choose_the_weights_together():
    """The first fold's rows alone would choose the other weights."""

    def measured(raw, average):
        groups = np.array(["a", "b"])
        losses = {
            name: DocumentLosses(np.array(nll), np.array([1, 1]), np.array([4, 4]), groups)
            for name, nll in (("raw", raw), ("average", average))
        }
        better = min(losses, key=lambda name: losses[name].nll_nats_D.sum())
        (other,) = set(losses) - {better}
        return Evaluation(1, 0.5, losses[better], better, losses[other])

    evaluations = [measured([3.0, 3.0], [3.1, 3.1]), measured([4.0, 4.0], [3.0, 3.0])]
    assert evaluations[0].weights == "raw"
    weights, losses = pooled(evaluations)
    assert weights == "average"
    assert losses.nll_nats_D.tolist() == [3.1, 3.1, 3.0, 3.0]
    started = Evaluation(1, 0.5, evaluations[0].validation)  # where one fold has no average yet
    weights, losses = pooled([evaluations[1], started])
    assert weights == "raw"
    assert losses.nll_nats_D.tolist() == [4.0, 4.0, 3.0, 3.0]


@pytest.mark.slow
def test_what_folds_chose_is_saved(tiny_model_dir, english_text, tmp_path):
    texts = [" ".join(p.split())[:100] for p in english_text.split("\n\n") if len(p) > 100][:24]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    runs = []
    for averaging in ((), ("regularizers.ema.decay=0.999",)):
        settings = [*FAST, "train.learning_rate=3e-3", "eval.folds=2", "control.fixed_epochs=0"]
        settings += ["train.batch_size=4", "train.micro_batch_size=4", *averaging]
        out = tmp_path / str(len(averaging))
        result = fit(str(tiny_model_dir), str(path), out=out, recipe="full", settings=settings)
        runs.append(result.run)
    for run in runs:  # an average that hardly moves is never better
        assert run.read_json("result.json")["best_weights"] == "raw"
    first, second = (weights(run.best) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["rollback", "wise_ft"])
def test_folds_are_refused_by_what_needs_a_validation_part(
    name, tiny_model_dir, english_text, tmp_path
):
    path = tmp_path / "few.jsonl"
    texts = [" ".join(p.split())[:100] for p in english_text.split("\n\n") if len(p) > 100][:24]
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
