"""Bases in four and eight bits: what they compute, weigh and are saved as."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.prepare import prepare
from heldout.lm.flat_trial import reason_for_padding
from heldout.lm.load import load_model
from heldout.lm.merging import merge_into_base
from heldout.lm.quantized import NOTE, Quantization, num_parameters, quantization_of

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

EMBEDDED = "package:heldout"  # trained, and wide enough that rounding shows as it does elsewhere
IDS = torch.arange(3, 27).view(2, 12)
BITS = ("4bit", "8bit")


@torch.no_grad()
def logits_of(model):
    return model.eval()(IDS).logits


def loaded(bits, model=EMBEDDED, compute="float32"):
    return load_model(str(model), device="cpu", quantization=Quantization(bits, compute))


def adapted(bits, model=EMBEDDED):
    recipe = Recipe().replace(model={"load_in": bits, "lora_rank": 2})
    return prepare(loaded(bits, model), recipe)


@pytest.mark.parametrize(("bits", "most"), [("4bit", 0.25), ("8bit", 0.03)])
def test_the_quantized_base_computes_nearly_what_the_whole_one_does(bits, most):
    whole = logits_of(load_model(EMBEDDED, device="cpu").model)
    off = (logits_of(loaded(bits).model) - whole).norm() / whole.norm()
    assert 1e-4 < off < most


@pytest.mark.parametrize("bits", BITS)
def test_weights_take_as_many_bytes_as_was_counted_and_count_as_what_they_stand_for(bits):
    whole = load_model(EMBEDDED, device="cpu")
    found = loaded(bits)
    held = sum(p.numel() * p.element_size() for p in found.model.parameters())
    counted = Quantization(bits).bytes_of(whole.model, torch.float32)
    # Scales lie beside the parameters.
    assert held < counted < 1.02 * held
    assert found.parameters == num_parameters(found.model) == whole.parameters


@pytest.mark.parametrize("bits", BITS)
def test_training_sees_the_weights_that_are_measured(bits):
    model = adapted(bits)
    measured = logits_of(model)
    again = model.train()(IDS).logits
    torch.testing.assert_close(again, measured, atol=2e-5, rtol=1e-5)
    logits_of(model)  # evaluation in between changes no gradient
    model.train()(IDS, labels=IDS).loss.backward()
    gradients = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_is_that_of_the_dequantized_weights(bits):
    from peft.utils.integrations import dequantize_bnb_weight

    layer = loaded(bits).model.model.layers[0].mlp.down_proj
    state = getattr(layer, "state", None)
    weight_DE = dequantize_bnb_weight(layer.weight, state=state).float()
    inputs = torch.randn(3, weight_DE.shape[1], requires_grad=True)
    twin = inputs.detach().clone().requires_grad_()
    output, expected = layer(inputs), twin @ weight_DE.T
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(inputs.grad, twin.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("bits", BITS)
def test_a_row_has_the_same_logits_whatever_stands_beside_it(bits):
    model = loaded(bits).model
    with torch.no_grad():
        alone = model(IDS[:1]).logits
    torch.testing.assert_close(logits_of(model)[:1], alone, atol=2e-5, rtol=1e-5)
    assert reason_for_padding(model) == ""


@pytest.mark.parametrize("bits", BITS)
def test_an_adapter_comes_back_on_its_quantized_base(bits, tmp_path):
    model = adapted(bits)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    expected = logits_of(model)
    save_model(model, loaded(bits).tokenizer, tmp_path)
    assert json.loads((tmp_path / NOTE).read_text()) == {"load_in": bits, "compute": "float32"}
    again = load_model(str(tmp_path), device="cpu")
    assert quantization_of(again.model) == Quantization(bits)
    torch.testing.assert_close(logits_of(again.model), expected, atol=2e-5, rtol=1e-5)
    other = adapted(bits)
    load_weights(other, tmp_path)
    torch.testing.assert_close(logits_of(other), expected, atol=2e-5, rtol=1e-5)


def test_a_broken_note_is_refused_in_one_line(tmp_path):
    save_model(adapted("4bit"), loaded("4bit").tokenizer, tmp_path)
    (tmp_path / NOTE).write_text('{"load_in": "3bit"}')
    with pytest.raises(UserError, match="load_in must be 4bit or 8bit"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("bits", BITS)
def test_weights_that_are_no_numbers_are_refused(bits, tiny_model_dir, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    model.save_pretrained(tmp_path)
    load_model(str(tiny_model_dir), device="cpu").tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="NaN or infinite"):
        loaded(bits, tmp_path)


def test_a_model_that_lies_there_quantized_is_refused(tmp_path):
    found = loaded("4bit")
    found.model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="quantized already"):
        loaded("4bit", tmp_path)


def test_an_adapter_on_a_quantized_base_is_not_merged():
    with pytest.raises(UserError, match="trained on a base in 4bit"):
        merge_into_base(adapted("4bit"), "best")
