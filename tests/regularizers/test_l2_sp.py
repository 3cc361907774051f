import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.lm.adapters import adapter_products
from heldout.regularizers.l2_sp import L2SP, add_l2_sp_penalty, pull_back


@pytest.fixture
def base(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64)


@pytest.fixture
def lora(base):
    torch.manual_seed(0)
    options = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"}
    model = get_peft_model(base, LoraConfig(**options), autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def moved(model):
    """Anchors of the model as it is, after which its weights move."""
    anchors = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return anchors


def test_the_penalty_is_the_distance_to_the_start(base):
    anchors = moved(base)
    penalty = sum((p - anchors[n]).square().sum() for n, p in base.named_parameters()) * 0.3 / 2
    expected = torch.autograd.grad(penalty, list(base.parameters()))
    found = add_l2_sp_penalty(base, anchors, 0.3)
    torch.testing.assert_close(found, penalty.detach(), rtol=1e-12, atol=0)
    for parameter, gradient in zip(base.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-12)


def test_the_decoupled_step_is_that_of_each_weight_at_its_own_rate(base):
    anchors = moved(base)
    start = copy.deepcopy(base)
    rates = {n: 0.1 if "mlp" in n else 0.02 for n, _ in base.named_parameters()}
    pull_back(base, anchors, 0.5, rates)
    for name, before in start.named_parameters():
        expected = before - rates[name] * 0.5 * (before - anchors[name])
        torch.testing.assert_close(base.get_parameter(name), expected, rtol=1e-12, atol=1e-14)


def test_on_lora_both_forms_follow_the_gradient_of_the_product(lora):
    products = [(each.a, each.b, each.scale) for each in adapter_products(lora)]
    factors = [factor for a, b, _ in products for factor in (a, b)]
    built = sum((scale * b @ a).square().sum() for a, b, scale in products) / 2
    expected = torch.autograd.grad(built, factors)
    start = [factor.detach().clone() for factor in factors]
    regularizer = L2SP(rate=0.5, decoupled=False)
    regularizer.prepare(lora)
    assert not regularizer._anchors, "the base lies under the adapter"
    loss = regularizer.around_gradient(lora, lambda: torch.zeros((), dtype=torch.float64), 0)
    torch.testing.assert_close(loss, 0.5 * built.detach(), rtol=1e-12, atol=0)
    L2SP(rate=0.5).after_step(lora, 0, {n: 0.2 for n, _ in lora.named_parameters()})
    for factor, first, gradient in zip(factors, start, expected, strict=True):
        torch.testing.assert_close(factor.grad, 0.5 * gradient, rtol=1e-12, atol=1e-12)
        after = first - 0.2 * 0.5 * gradient
        torch.testing.assert_close(factor, after, rtol=1e-12, atol=1e-12)


def test_a_pull_without_a_task_ends_at_the_start():
    model = nn.Linear(3, 2)
    anchors = moved(model)
    for _ in range(60):
        pull_back(model, anchors, 2.0, {"weight": 0.2, "bias": 0.2})
    torch.testing.assert_close(model.weight.detach(), anchors["weight"])
    torch.testing.assert_close(model.bias.detach(), anchors["bias"])


def test_bad_values_are_refused(base):
    with pytest.raises(UserError, match=r"L2SP\(rate=...\) must be 0 or more, got -1"):
        L2SP(rate=-1)
    fast = Recipe().replace(train={"learning_rate": 0.1})
    with pytest.raises(UserError, match=r"L2SP\(rate=20\) times the learning rate 0.1 must be"):
        L2SP(rate=20).check(base, fast)
