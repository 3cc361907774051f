"""Landscape figures against slow computations of their definitions, and weights left as found."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from heldout.core.facts import Facts
from heldout.core.measurement import Measurement
from heldout.core.probe import Evidence
from heldout.core.row import Row
from heldout.lm.measuring.landscape import (
    gradient_noise_scale,
    landscape,
    layer_of,
    noise_scale,
    relative_sharpness,
    update_norms,
)
from heldout.lm.nll import document_losses
from heldout.lm.tokenize import collate, tokenize_row
from heldout.probes.landscape import Landscape

OPTIONS = {"max_length": 48, "batch_size": 8}


@pytest.fixture(scope="module")
def rows(english_text):
    return [
        Row(i, ({"role": "text", "content": english_text[i * 150 : i * 150 + 120]},), str(i))
        for i in range(12)
    ]


@pytest.fixture(scope="module")
def base(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()


@pytest.fixture(scope="module")
def tuned(base, rows, tiny_tokenizer):
    model = copy.deepcopy(base)
    batch = collate([tokenize_row(row, tiny_tokenizer, 48).windows[0] for row in rows[:6]], 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def found(base, tuned, rows, tiny_tokenizer):
    before = {name: p.clone() for name, p in tuned.state_dict().items()}
    found = landscape(tuned, base, tiny_tokenizer, rows[:6], rows[6:], **OPTIONS)
    for name, p in tuned.state_dict().items():
        assert torch.equal(p, before[name]), f"{name} was changed"
    return found


def test_the_path_begins_at_the_base_and_ends_at_the_tuned(
    base, tuned, rows, found, tiny_tokenizer
):
    for part, path in ((rows[:6], found.path_train), (rows[6:], found.path_heldout)):
        for model, at in ((base, 0), (tuned, -1)):
            losses = document_losses(model, part, tiny_tokenizer, **OPTIONS)
            assert path[at].nats_per_token == pytest.approx(losses.nats_per_token, rel=1e-5)
    first, *_, last = (losses.nats_per_token for losses in found.path_train)
    assert last < first - 1


def test_sharpness_grows_with_the_noise_and_is_none_without(tuned, rows, found, tiny_tokenizer):
    few, more_rows = (document_losses(tuned, rows[:n], tiny_tokenizer, **OPTIONS) for n in (3, 6))
    none = relative_sharpness(tuned, rows[:3], tiny_tokenizer, 2, 0.0, 0, few, **OPTIONS)
    assert none.tolist() == [0, 0]
    more = relative_sharpness(tuned, rows[:6], tiny_tokenizer, 4, 0.2, 0, more_rows, **OPTIONS)
    assert more.mean() > 3 * abs(found.sharpness_draws.mean())
    assert found.base_sharpness_draws.shape == found.sharpness_draws.shape


def test_noise_scale_of_a_known_distribution():
    """Gradients with mean (3, 4) and unit noise in 50 dimensions, per token: trace 50, |G|^2 25."""
    rng = np.random.default_rng(0)
    mean = np.zeros(50)
    mean[:2] = 3, 4
    estimates = []
    for _ in range(400):
        batches = mean + rng.normal(0, 1, (12, 50)) / np.sqrt(20)  # means over 20 tokens
        total = batches.sum(0)
        estimates.append(noise_scale(total @ total, (batches**2).sum(), 12, 20))
    assert np.mean(estimates) == pytest.approx(50 / 25, rel=0.05)
    assert noise_scale(0.0, 1.0, 12, 20) is None


def test_noise_scale_of_a_model_is_that_of_all_gradients(tuned, rows, tiny_tokenizer):
    batches = [collate([tokenize_row(row, tiny_tokenizer, 48).windows[0]], 0) for row in rows[:8]]
    gradients = []
    for batch in batches:
        logits = tuned(batch["input_ids"]).logits[0, :-1]
        loss = F.cross_entropy(logits, batch["labels"][0, 1:])
        parts = torch.autograd.grad(loss, list(tuned.parameters()))
        gradients.append(torch.cat([g.flatten() for g in parts]).double().numpy())
    stacked = np.array(gradients)
    tokens = np.mean([batch["labels"].shape[1] - 1 for batch in batches])
    signal = (8 * (stacked.mean(0) ** 2).sum() - (stacked**2).sum(1).mean()) / 7
    trace = tokens * stacked.var(axis=0, ddof=1).sum()
    scale = gradient_noise_scale(tuned, batches)
    if signal <= 0:
        assert scale is None
    else:
        value, (low, high) = scale
        assert value == pytest.approx(trace / signal, rel=1e-3)
        assert low < value < high


def test_update_norms_by_layer(base):
    other = copy.deepcopy(base)
    with torch.no_grad():
        for p in other.model.layers[1].parameters():
            p.mul_(1.1)
    norms = update_norms(other, base)
    assert norms["layer 1"] == pytest.approx(0.1, rel=1e-4)
    assert norms["layer 0"] == norms["embed_tokens"] == 0
    assert 0 < norms["all"] < 0.1
    assert layer_of("base_model.model.model.layers.7.mlp.up_proj.weight") == "layer 7"


def test_the_probe_tells_all_with_controls(found):
    evidence = Evidence({}, facts=Facts(batch_size=8)).adding(found)
    told = {m.name: m for m in Landscape().measure(evidence)}
    assert set(told) == {"sharpness_best", "barrier_best", "gradient_noise_scale", "update_norm"}
    assert set(told["sharpness_best"].contrasts) == {"base"}
    assert isinstance(told["barrier_best"], Measurement)
    assert told["update_norm"].value == found.update_norms["all"] > 0


def test_without_a_base_only_what_needs_none(tuned, rows, tiny_tokenizer):
    found = landscape(tuned, None, tiny_tokenizer, rows[:6], rows[6:], **OPTIONS, num_draws=2)
    assert found.update_norms is None
    assert found.path_train == ()
    assert len(found.sharpness_draws) == 2
