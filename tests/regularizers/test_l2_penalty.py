import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.lm.adapters import AdapterProduct, adapter_products
from heldout.regularizers.l2_penalty import (
    L2Penalty,
    add_l2_penalty,
    product_gradients,
    squared_norm_of_product,
)
from heldout.training.steps import Steps


@pytest.fixture
def base(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64)


@pytest.fixture
def lora(base):
    torch.manual_seed(0)
    options = {"r": 3, "lora_alpha": 12, "target_modules": "all-linear"}
    model = get_peft_model(base, LoraConfig(**options), autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


BATCH = {"input_ids": torch.arange(20)[None] + 3, "labels": torch.arange(20)[None] + 3}


def gradients(model, regularizers):
    loss = Steps(model, regularizers).gradient([dict(BATCH), dict(BATCH)])
    return loss, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def slow_twin(model, rate, products=False):
    """Autograd through the loss with its penalty written out, B A built where there is one."""
    model.zero_grad()
    penalty = 0
    if products:
        for module in model.modules():
            if hasattr(module, "lora_A") and module.lora_A:
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                penalty = penalty + ((12 / 3) * (b @ a)).square().sum()
    else:
        for parameter in model.parameters():
            penalty = penalty + parameter.square().sum()
    loss = model(**BATCH).loss + rate / 2 * penalty
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return loss.item(), found


@pytest.mark.parametrize("kind", ["base", "lora"])
def test_it_is_the_gradient_of_the_loss_with_its_penalty(kind, request):
    model = request.getfixturevalue(kind)
    expected_loss, expected = slow_twin(model, 0.3, products=kind == "lora")
    loss, found = gradients(model, [L2Penalty(rate=0.3)])
    assert loss == pytest.approx(expected_loss, rel=1e-6)  # losses are summed in float32
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


def test_the_closed_form_is_autograd_on_the_product():
    torch.manual_seed(0)
    shapes = [(4, 7, 5, 2.0), (4, 7, 5, 0.5), (2, 3, 9, 1.0)]
    products = [
        (
            torch.randn(r, e, dtype=torch.float64, requires_grad=True),
            torch.randn(d, r, dtype=torch.float64, requires_grad=True),
            scale,
        )
        for r, e, d, scale in shapes
    ]
    built = sum((scale * b @ a).square().sum() for a, b, scale in products) / 2
    factors = [factor for a, b, _ in products for factor in (a, b)]
    expected = torch.autograd.grad(built, factors)
    half, found = product_gradients([AdapterProduct(*product) for product in products])
    torch.testing.assert_close(half, built.detach(), rtol=1e-12, atol=0)
    by_factor = {id(factor): gradient for factor, gradient in found}
    for factor, gradient in zip(factors, expected, strict=True):
        torch.testing.assert_close(by_factor[id(factor)], gradient, rtol=1e-12, atol=1e-12)
    short = sum(squared_norm_of_product(*product) for product in products) / 2
    for one, other in zip(torch.autograd.grad(short, factors), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_frozen_factor_gets_no_gradient(lora):
    for product in adapter_products(lora):
        product.a.requires_grad_(False)
    add_l2_penalty(lora, 0.1)
    assert all((p.grad is None) == ("lora_B" not in n) for n, p in lora.named_parameters())


def test_full_float32_under_autocast(lora):
    lora.float()
    expected = add_l2_penalty(lora, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(add_l2_penalty(lora, 0.1), expected)


def test_nothing_but_the_task_at_rate_zero(base):
    loss, plain = gradients(base, [])
    plain = {name: value.clone() for name, value in plain.items()}
    base.zero_grad()
    again, found = gradients(base, [L2Penalty(rate=0)])
    assert loss == again
    assert all(torch.equal(value, found[name]) for name, value in plain.items())


def test_bad_values_and_other_adapters_are_refused(base):
    with pytest.raises(UserError, match=r"L2Penalty\(rate=...\) must be 0 or more, got -1"):
        L2Penalty(rate=-1)
    dora = get_peft_model(base, LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]))
    with pytest.raises(UserError, match="plain LoRA on linear layers alone, not DoRA"):
        L2Penalty().check(dora, None)
