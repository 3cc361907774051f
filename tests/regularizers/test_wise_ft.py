import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from training_runs import equal, train, weights
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.regularizers.wise_ft import WiseFT, interpolated


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def losses(nats_per_token):
    return DocumentLosses(np.array([nats_per_token]), np.ones(1), np.ones(1), np.arange(1))


def finished(model, regularizer, loss):
    """Figures, with ``loss(weights)`` as what is measured on the held-out part."""
    return regularizer.finish(model, lambda: losses(loss(weights(model))))


def test_finds_the_point_between_base_and_tuned_that_measures_best(model):
    base = weights(model)
    regularizer = WiseFT()
    tuned = train(model, [regularizer])[1][-1]
    name = "model.layers.0.mlp.up_proj.weight"

    def loss(now):  # lowest 0.3 of the way
        way = ((now[name] - base[name]) / (tuned[name] - base[name])).median().item()
        return (way - 0.32) ** 2

    figures = finished(model, regularizer, loss)
    assert figures == {"wise_ft_alpha": 0.3, "wise_ft_nll": pytest.approx(4e-4, rel=0.01)}
    for key, now in weights(model).items():
        expected = base[key].double() + 0.3 * (tuned[key].double() - base[key].double())
        torch.testing.assert_close(now.double(), expected, atol=1e-6, rtol=1e-5)


def test_the_ends_are_exact_and_of_equals_the_larger_is_kept(model):
    base = weights(model)
    regularizer = WiseFT()
    tuned = train(model, [regularizer])[1][-1]
    assert finished(model, regularizer, lambda now: 1.0)["wise_ft_alpha"] == 1.0
    assert equal(weights(model), tuned)
    finished(model, regularizer, lambda now: float(not equal(now, base)))
    assert equal(weights(model), base)


def test_with_lora_the_change_of_each_weight_is_scaled_exactly(model):
    plain = {name: p.detach().clone() for name, p in model.named_parameters()}
    model = get_peft_model(
        model, LoraConfig(r=2, target_modules="all-linear", modules_to_save=["norm"])
    )
    regularizer = WiseFT(alphas=(0.4,))
    train(model, [regularizer])
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    full = layer.get_delta_weight("default").detach().clone()
    norm = model.base_model.model.model.norm.modules_to_save["default"].weight
    tuned_norm = norm.detach().clone()
    finished(model, regularizer, lambda now: 1.0)
    torch.testing.assert_close(layer.get_delta_weight("default"), 0.4 * full)
    start = plain["model.norm.weight"]
    torch.testing.assert_close(norm.detach(), start + 0.4 * (tuned_norm - start))


def test_interpolates_in_float32():
    base = torch.tensor([1.0], dtype=torch.bfloat16)
    tuned = torch.tensor([1.0078125], dtype=torch.bfloat16)
    assert interpolated(base, tuned, 0.5).item() == 1.00390625


def test_bad_values(model):
    with pytest.raises(UserError, match=r"WiseFT\(alphas=...\) must be .* got \[0.5, 1.5\]"):
        WiseFT(alphas=(0.5, 1.5))
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", use_dora=True))
    with pytest.raises(UserError, match=r"lora_magnitude_vector.*plain LoRA or model\.method=full"):
        WiseFT().check(model, None)
