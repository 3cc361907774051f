"""Steps on a model inside torch.compile take the gradient of the model itself."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from heldout.regularizers.kl_to_base import KLToBase
from heldout.regularizers.l2_sp import L2SP
from heldout.regularizers.label_smoothing import LabelSmoothing
from heldout.regularizers.sam import SAM
from heldout.training.steps import Steps

IDS = torch.arange(3, 27).view(2, 12)
WINDOW = [{"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("beginning", [None, True, "pissa"])
def test_the_gradient_is_that_of_the_model(beginning, tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    if beginning is not None:
        options = {"r": 2, "target_modules": "all-linear", "init_lora_weights": beginning}
        model = get_peft_model(model, LoraConfig(**options))
    regularizers = [LabelSmoothing(amount=0.1), KLToBase(weight=0.5), L2SP(decoupled=False), SAM()]
    found = []
    for wrap in (lambda one: one, lambda one: torch.compile(one, backend="eager")):
        own = copy.deepcopy(model)
        steps = Steps(own, regularizers)
        with torch.no_grad():
            torch.manual_seed(1)
            for parameter in own.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.02)
        loss = steps.gradient(WINDOW, wrap(own))
        found.append((loss, {n: p.grad for n, p in own.named_parameters() if p.requires_grad}))
    (plain, expected), (compiled, gradients) = found
    assert compiled == pytest.approx(plain, rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)
