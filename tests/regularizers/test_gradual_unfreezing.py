import copy
from dataclasses import dataclass, field

import pytest
import torch
from peft import LoraConfig, get_peft_model
from training_runs import batches, equal, train, weights
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.adapters import base_weights
from heldout.lm.weights import copies, trained_parameters
from heldout.regularizers import gradual_unfreezing
from heldout.regularizers.gradual_unfreezing import GradualUnfreezing, num_learning
from heldout.training.steps import Steps

PARTS = {"embed": "embed_tokens", "0": "layers.0", "1": "layers.1", "norm": "model.norm"}


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def moved(found, start):
    """Per step, which parts have changed since the step before."""
    steps = []
    for now in found:
        changed = {name for name in now if not torch.equal(now[name], start[name])}
        steps.append({key for key, part in PARTS.items() if any(part in name for name in changed)})
        start = now
    return steps


@pytest.mark.parametrize("rule", [{"share": 0.5}, {"steps_per_layer": 2}])
def test_layers_learn_from_the_top_down(model, rule):
    start = weights(model)
    # Weight decay is on in this optimizer, and moves no frozen weight either.
    _, found = train(model, [GradualUnfreezing(**rule)], num_steps=6, total=8)
    top = {"1", "norm"}
    assert moved(found, start) == [top] * 2 + [top | {"0"}] * 2 + [top | {"0", "embed"}] * 2
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_with_lora(model):
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    start = weights(model)
    _, found = train(model, [GradualUnfreezing(share=0.5)], num_steps=4)
    assert moved(found, start) == [{"1"}, {"1"}, {"0", "1"}, {"0", "1"}]


def test_gradients_are_the_same_whether_computed_or_spared(model, monkeypatch):
    """Over several processes all gradients are computed, then the frozen ones dropped."""
    other = copy.deepcopy(model)
    spared = train(model, [GradualUnfreezing()])[1]
    monkeypatch.setattr(gradual_unfreezing, "_can_skip_backward", lambda model: False)
    computed = train(other, [GradualUnfreezing()])[1]
    assert all(equal(one, two) for one, two in zip(spared, computed, strict=True))


def test_frozen_layers_take_no_backward_pass(model):
    steps = Steps(model, [GradualUnfreezing()], total_steps=8)
    calls = []
    for index in (0, 1):
        model.model.layers[index].mlp.down_proj.register_full_backward_hook(
            lambda *_, index=index: calls.append(index)
        )
    steps.gradient(batches(1))
    assert calls == [1]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, _ in model.named_parameters() if "layers.1" in name or "model.norm" in name
    }


def test_beside_a_regularizer_that_puts_weights_in(model):
    start = weights(model)
    _, found = train(model, [BaseFirst(), GradualUnfreezing()])
    assert moved(found, start) == [{"1", "norm"}, {"0", "1", "norm"}, set(PARTS), set(PARTS)]


@dataclass(frozen=True)
class BaseFirst(Regularizer):
    anchors: dict = field(default_factory=dict)

    def prepare(self, model):
        self.anchors.update(copies(trained_parameters(model)))

    def around_gradient(self, model, gradient, step):
        with base_weights(model, self.anchors):
            model(**batches(1)[0])
        return gradient()


def test_num_learning():
    assert [num_learning(5, p) for p in (0, 0.24, 0.25, 0.5, 0.99, 1, 3)] == [1, 1, 2, 3, 4, 5, 5]


def test_bad_values(model):
    with pytest.raises(UserError, match=r"share=...\) must be above 0 and at most 1, got 0"):
        GradualUnfreezing(share=0.0)
    with pytest.raises(UserError, match=r"steps_per_layer=...\) must be 0 .* got -1"):
        GradualUnfreezing(steps_per_layer=-1)
    with pytest.raises(UserError, match=r"use train\.optimizer=adamw"):
        GradualUnfreezing().check(model, Recipe().replace(train={"optimizer": "schedule_free"}))
    steps = Steps(model, [GradualUnfreezing()])
    steps.begin(0)
    with pytest.raises(UserError, match=r"needs Steps\(total_steps=...\), or set steps_per_layer"):
        steps.begin(1)
