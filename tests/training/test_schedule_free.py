"""The schedule-free optimizer in the training loop: two forms of the weights, one of them saved."""

import importlib.util
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Regularizer
from heldout.core.row import Row
from heldout.training.loop import Schedule, Training, train
from heldout.training.windows import WindowDataset

RECIPE = Recipe().replace(
    model={"method": "full"},
    train={"optimizer": "schedule_free", "warmup_steps": 2, "max_grad_norm": 0.0},
)
RATE, STEPS = 3e-3, 6


def run(folder, model_dir, *, stop_after=None, resume=False, regularizers=(), recipe=RECIPE):
    """Weights at each evaluation, and at the end."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    measured, steps = {}, []

    def evaluate(step, *_):
        measured[step] = weights(model)
        return Continue(), {}

    def should_stop():
        steps.append(1)
        return len(steps) == stop_after

    windows = WindowDataset(rows_of(), tokenizer, 32)
    train(
        Training(model, windows, recipe, regularizers, RATE, Schedule(1, STEPS, 0.5), folder),
        on_evaluate=evaluate,
        should_stop=should_stop,
        resume=resume,
    )
    return measured, weights(model)


def rows_of():
    return [Row(i, ({"role": "text", "content": f"Row {i} of it. "},), "g") for i in range(8)]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def by_the_paper(model_dir):
    """Averages x after each step: z takes the steps, y between z and x has the gradient."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64)
    windows = WindowDataset(rows_of(), AutoTokenizer.from_pretrained(model_dir), 32)
    batch = windows.collate([windows[i] for i in range(len(windows))])
    batch.pop("row_index", None)
    parameters = list(model.parameters())
    x = [p.detach().clone() for p in parameters]
    z, v = [p.clone() for p in x], [torch.zeros_like(p) for p in x]
    squares, found = 0.0, {}
    for step in range(1, STEPS + 1):
        rate = RATE * min(1.0, step / RECIPE.train.warmup_steps)
        squares += rate**2
        for p, x_i, z_i in zip(parameters, x, z, strict=True):
            p.data = 0.1 * z_i + 0.9 * x_i
        gradients = torch.autograd.grad(model(**batch).loss, parameters)
        for i, g in enumerate(gradients):
            v[i] = 0.999 * v[i] + 0.001 * g**2
            z[i] = z[i] - rate * g / ((v[i] / (1 - 0.999**step)).sqrt() + 1e-8)
            x[i] = x[i] + rate**2 / squares * (z[i] - x[i])
        found[step] = dict(zip((n for n, _ in model.named_parameters()), x.copy(), strict=True))
    return found


def test_measures_the_averages_of_the_paper_and_ends_with_them(tiny_model_dir, tmp_path):
    measured, last = run(tmp_path, tiny_model_dir)
    assert list(measured) == [2, 4, 6]
    expected = by_the_paper(tiny_model_dir)
    for step, found in measured.items():
        for name, value in found.items():
            torch.testing.assert_close(value.double(), expected[step][name], atol=2e-5, rtol=1e-3)
    assert all(torch.equal(value, measured[6][name]) for name, value in last.items())


def test_a_resumed_run_gives_the_same_weights(tiny_model_dir, tmp_path):
    _, whole = run(tmp_path / "a", tiny_model_dir)
    _, stopped = run(tmp_path / "b", tiny_model_dir, stop_after=3)
    assert any(not torch.equal(value, stopped[name]) for name, value in whole.items())
    _, resumed = run(tmp_path / "b", tiny_model_dir, resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_refuses_what_does_not_go_with_it(tiny_model_dir, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"train\.schedule=constant, got 'cosine'"):
        RECIPE.replace(train={"schedule": "cosine"})
    with pytest.raises(UserError, match=r"WeightKeeping works on the weights after a step"):
        run(tmp_path, tiny_model_dir, regularizers=[WeightKeeping()])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"run `pip install 'heldout\[schedule_free\]'`"):
        run(tmp_path, tiny_model_dir)


@dataclass(frozen=True)
class WeightKeeping(Regularizer):
    def after_step(self, model, step, rates):
        pass
