import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from scipy.optimize import minimize_scalar
from training_runs import equal, weights
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.regularizers.temperature import Temperature

IDS = torch.randint(3, 400, (40, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits[:, :-1].flatten(0, 1).double()


def loss(logits_NV, targets_N):
    return F.cross_entropy(logits_NV, targets_N).item()


def evaluate(model, targets_N):
    count = np.array([len(targets_N)])
    nats = count * loss(logits(model), targets_N)
    return DocumentLosses(nats, count, count, np.arange(1))


def text_of_a_model_twice_too_sure(model):
    """Next tokens drawn at temperature 2."""
    model.lm_head.weight.data.mul_(25.0)
    generator = torch.Generator().manual_seed(2)
    probabilities_NV = (logits(model) / 2).softmax(-1)
    return torch.multinomial(probabilities_NV, 1, generator=generator).squeeze(1)


def test_finds_the_temperature_of_the_lowest_loss_and_folds_it_in(model):
    targets_N = text_of_a_model_twice_too_sure(model)
    before_NV = logits(model)
    figures = Temperature(most=4).finish(model, lambda: evaluate(model, targets_N))
    best = minimize_scalar(
        lambda log: loss(before_NV / math.exp(log), targets_N), bounds=(-1, 1), method="bounded"
    )
    assert figures["temperature"] == pytest.approx(math.exp(best.x), rel=0.02)
    assert 1.8 < figures["temperature"] < 2.2
    after_NV = logits(model)
    torch.testing.assert_close(after_NV, before_NV / figures["temperature"], atol=1e-4, rtol=1e-4)
    assert figures["temperature_nll"] == pytest.approx(loss(after_NV, targets_N), rel=1e-6)
    assert torch.equal(after_NV.argmax(-1), before_NV.argmax(-1))


def test_what_cannot_be_bettered_stays_as_it_is(model):
    before = weights(model)

    def rising():
        return DocumentLosses(np.ones(1), np.ones(1), np.ones(1), np.arange(1))

    assert Temperature().finish(model, rising)["temperature"] == 1.0
    assert equal(weights(model), before)


def test_an_adapter_is_refused(model):
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(UserError, match=r"model\.method=full"):
        Temperature().check(adapted, None)
    with pytest.raises(UserError, match="above 1 and at most 10"):
        Temperature(most=1.0)
