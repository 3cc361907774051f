"""The base of a trained adapter: what the model was before the first step, however it began."""

import copy

import numpy as np
import peft
import pytest
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import corda, eva
from peft.tuners.lora.config import CordaConfig
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.lm.adapters import (
    adapter_products,
    adapter_start,
    base_anchors,
    base_weights,
    takes_from_base,
)
from heldout.regularizers.kl_to_base import KLToBase
from heldout.regularizers.l2_penalty import L2Penalty, add_l2_penalty
from heldout.regularizers.l2_sp import L2SP, pull_back
from heldout.regularizers.wise_ft import WiseFT
from heldout.training.steps import Steps

IDS = torch.arange(3, 27).view(2, 12)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LINEAR = {"r": 4, "lora_alpha": 6, "target_modules": NAMES}


def plain(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()


def with_corda(model, options):
    config = LoraConfig(**options, init_lora_weights="corda", corda_config=CordaConfig())
    corda.preprocess_corda(model, config, run_model=lambda: model(IDS[:1]))
    return get_peft_model(model, config)


def with_lora_ga(model, options):
    from peft.tuners.lora import loraga

    own = peft.LoraGAConfig()
    config = LoraConfig(**options, init_lora_weights="lora_ga", lora_ga_config=own)
    model.enable_input_require_grads()
    loraga.preprocess_loraga(model, config, lambda: model(**BATCH).loss.backward())
    model.disable_input_require_grads()
    return get_peft_model(model, config)


def with_eva(model, options):
    config = LoraConfig(**options, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))
    model = get_peft_model(model, config, low_cpu_mem_usage=True)
    eva.initialize_lora_eva_weights(model, [{"input_ids": IDS}] * 2)
    return model


def named(**more):
    return lambda model, options: get_peft_model(model, LoraConfig(**options, **more))


TAKING = {
    "pissa": named(init_lora_weights="pissa"),
    "pissa_niter": named(init_lora_weights="pissa_niter_8"),
    "pissa and dora": named(init_lora_weights="pissa", use_dora=True),
    "olora": named(init_lora_weights="olora"),
    "corda": with_corda,
    **({"lora_ga": with_lora_ga} if hasattr(peft, "LoraGAConfig") else {}),  # newer PEFT
}
BEGINNINGS = {
    "lora": named(),
    "gaussian": named(init_lora_weights="gaussian"),
    "orthogonal": named(init_lora_weights="orthogonal"),
    "rslora": named(use_rslora=True),
    "dora": named(use_dora=True),
    "eva": with_eva,
    "modules_to_save": named(modules_to_save=["norm"]),
    "trainable tokens": named(trainable_token_indices=[5, 9]),
    **TAKING,
}


def moved(model, scale=0.1):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=scale)
    return model


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", BEGINNINGS)
def test_the_base_is_the_model_before_training_however_the_adapter_began(name, tiny_model_dir):
    torch.manual_seed(0)
    base = plain(tiny_model_dir)
    expected = logits(base)
    model = BEGINNINGS[name](base, LINEAR).eval()
    torch.testing.assert_close(logits(model), expected, atol=2e-6, rtol=1e-5)
    anchors = base_anchors(model)
    moved(model)
    tuned = logits(model)
    assert (tuned - expected).abs().max() > 0.01
    with base_weights(model, anchors):
        torch.testing.assert_close(logits(model), expected, atol=2e-6, rtol=1e-5)
    assert torch.equal(logits(model), tuned)


@pytest.mark.parametrize("name", TAKING)
def test_an_untouched_model_is_at_its_base(name, tiny_model_dir):
    model = TAKING[name](plain(tiny_model_dir), LINEAR)
    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    alone = Steps(model, []).loss(model, BATCH)
    beside_base = Steps(model, [KLToBase(weight=5.0)]).loss(model, BATCH)
    assert abs(float((beside_base - alone).detach())) < 1e-5
    if "dora" in name:
        return  # whose change is no product, which both refuse
    L2SP(rate=0.5).prepare(model)
    pull_back(model, {}, 0.5, dict.fromkeys(start, 0.2))
    assert float(add_l2_penalty(model, 0.5)) == 0
    for key, value in start.items():
        assert torch.equal(model.get_parameter(key), value)
        assert not model.get_parameter(key).grad.any()


@pytest.mark.parametrize("name", ["lora", "rslora", "pissa", "olora"])
def test_the_penalty_is_the_squared_change_of_the_weights(name, tiny_model_dir):
    base = plain(tiny_model_dir)
    before = {n: p.detach().double() for n, p in copy.deepcopy(base).named_parameters()}
    model = BEGINNINGS[name](base, LINEAR)
    L2Penalty().prepare(model)
    moved(model)
    found = add_l2_penalty(model, 0.3)
    factors = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    # The reference: B A is built, and autograd does the rest.
    model.zero_grad()
    squares = 0.0
    for key, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            inner = key.removeprefix("base_model.model.") + ".weight"
            product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            weight = layer.base_layer.weight + layer.scaling["default"] * product
            squares = squares + (weight.double() - before[inner]).square().sum()
    slow = 0.15 * squares
    slow.backward()
    torch.testing.assert_close(found.double(), slow.detach(), rtol=1e-4, atol=0)
    for key, gradient in factors.items():
        torch.testing.assert_close(gradient, model.get_parameter(key).grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_wise_ft_goes_from_the_base_to_the_tuned_model(name, tiny_model_dir):
    base = plain(tiny_model_dir)
    untouched = logits(base)
    model = TAKING[name](base, LINEAR).eval()
    for alpha in (0.0, 1.0):
        regularizer, tuned = WiseFT(alphas=(alpha,)), copy.deepcopy(model)
        regularizer.prepare(tuned)
        expected = logits(moved(tuned)) if alpha else untouched
        moved(tuned, 0.0 if alpha else 0.1)
        regularizer.finish(tuned, lambda: DocumentLosses(*np.ones((3, 1)), np.arange(1)))
        torch.testing.assert_close(logits(tuned), expected, atol=2e-6, rtol=1e-5)


def test_each_expert_has_a_product_of_its_own():
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        moe_intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=3,
        num_experts_per_tok=2,
    )
    model = Qwen3MoeForCausalLM(config).double()
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    options = {"r": 2, "lora_alpha": 6, "target_modules": [], "target_parameters": experts}
    model = moved(get_peft_model(model, LoraConfig(**options), autocast_adapter_dtype=False))
    layers = [m for m in model.modules() if isinstance(getattr(m, "num_experts", 0), int)]
    layers = [layer for layer in layers if hasattr(layer, "lora_A")]
    slow = sum(layer.get_delta_weight("default").square().sum() for layer in layers) / 2
    assert slow > 0.1
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    expected = torch.autograd.grad(slow, [model.get_parameter(n) for n in names])
    found = add_l2_penalty(model, 1.0)
    torch.testing.assert_close(found, slow.detach(), rtol=1e-12, atol=0)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)
    for _ in range(400):
        pull_back(model, {}, 1.0, dict.fromkeys(names, 0.2))
    left = sum(layer.get_delta_weight("default").square().sum() for layer in layers)
    assert left < 0.01 * slow


def test_a_resumed_training_keeps_the_base_of_its_first_part(tiny_model_dir, tmp_path):
    base = plain(tiny_model_dir)
    expected = logits(base)
    model = TAKING["pissa"](copy.deepcopy(base), LINEAR).eval()
    steps = Steps(model, [KLToBase()])
    moved(model)
    torch.save(steps.state_dict(), tmp_path / "state.pt")
    other = TAKING["pissa"](base, LINEAR).eval()
    resumed = Steps(other, [KLToBase()])
    other.load_state_dict(model.state_dict())
    for value in adapter_start(other).values():
        value.zero_()  # as if it had begun from other random numbers
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with base_weights(other, resumed.regularizers[0]._anchors):
        torch.testing.assert_close(logits(other), expected, atol=2e-6, rtol=1e-5)
    assert Steps(BEGINNINGS["lora"](plain(tiny_model_dir), LINEAR), [KLToBase()]).state_dict() == {}


@pytest.mark.parametrize("name", [name for name in TAKING if "dora" not in name])
def test_a_start_that_is_lost_is_refused(name, tiny_model_dir):
    model = moved(TAKING[name](plain(tiny_model_dir), LINEAR), 1e-3)
    for regularizer in (KLToBase(), L2SP(), L2Penalty(), WiseFT()):
        with pytest.raises(UserError, match=r"The adapter began as .* its base is lost: start a"):
            regularizer.prepare(model)


def test_what_takes_from_the_base_is_known_by_its_name(tiny_model_dir, tmp_path):
    model = TAKING["olora"](plain(tiny_model_dir), LINEAR)
    assert takes_from_base(model.peft_config["default"])
    assert all(each.start is None for each in adapter_products(model)), "not asked for yet"
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(plain(tiny_model_dir), tmp_path, is_trainable=True)
    assert takes_from_base(again.peft_config["default"])
    assert adapter_start(again), "saved before its first step"
