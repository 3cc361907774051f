import copy

import pytest
import torch
from full_logits import (
    assert_same,
    gradients,
    kl,
    log_probs,
    model64,
    nll,
    num_scored,
    ours,
    theirs,
    window,
)
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from heldout.core.errors import UserError
from heldout.regularizers.dropout import Dropout
from heldout.regularizers.kl_to_base import KLToBase
from heldout.training.steps import Steps


@pytest.fixture
def model(tiny_model_dir):
    return model64(tiny_model_dir)


def shift(model):
    """As if trained for a while."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


def slow_twin(model, base, batches, weight, reverse):
    total = 0.0
    for batch in batches:
        log_p, targets = log_probs(model, batch)
        total = total + nll(log_p, targets)
        with torch.no_grad():
            log_base = log_probs(base, batch)[0]
        total = total + weight * (kl(log_p, log_base) if reverse else kl(log_base, log_p))
    return total / num_scored(batches)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_loss_and_gradient_are_those_of_the_formula(adapted, reverse, model):
    base = copy.deepcopy(model).eval()
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    steps = Steps(model, [KLToBase(weight=0.7, reverse=reverse)])
    shift(model)
    batches = window((9, 5), (14,))
    found = steps.gradient(batches), gradients(model)
    if adapted:
        model.get_input_embeddings().weight.requires_grad_(False)
    assert_same(found, theirs(model, slow_twin(model, base, batches, 0.7, reverse)))


@pytest.mark.parametrize(
    "extra",
    [{}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["norm"]}],
    ids=["embedding", "bias", "head", "norm"],
)
def test_what_is_trained_beside_the_adapter_is_put_back_for_the_base(extra):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    base = Qwen2ForCausalLM(config).double().eval()
    shift(base)
    model = get_peft_model(
        copy.deepcopy(base), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **extra)
    )
    if not extra:
        model.get_input_embeddings().weight.requires_grad_(True)
    batches = window((9, 5), (14,))
    steps = Steps(model, [KLToBase(weight=0.7)])
    shift(model)
    found = steps.gradient(batches), gradients(model)
    # Logits of a head that is a wrapper are rounded to float32.
    twin = theirs(model, slow_twin(model, base, batches, 0.7, False))
    assert_same(found, twin, rtol=1e-5, atol=1e-8)


def test_the_base_predicts_without_dropout_and_modes_are_restored(model):
    steps = Steps(model, [Dropout(hidden=0.5), KLToBase()])
    seen = []
    model.model.norm.register_forward_hook(
        lambda module, inputs, output: seen.append((module.training, output.detach()))
    )
    frozen = model.model.layers[0].eval()
    batches = window((9, 5))
    with steps.attached():
        steps.begin(0)
        model.train()
        frozen.eval()
        steps.loss(model, batches[0])
        steps.begin(1)
        steps.loss(model, batches[0])
        assert model.training
        assert not frozen.training
    (task, one), (base, two), (_, three), (_, four) = seen
    assert (task, base) == (True, False)
    assert torch.equal(two, four)
    assert not torch.equal(one, three)


def test_frozen_adapter_weights_stay_frozen(model):
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    model.get_parameter(names[0]).requires_grad_(False)
    ours(model, [KLToBase()], window((9, 5)))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == names[1:]


def test_an_untrained_model_has_no_divergence(model):
    batches = window((9, 5), (3,))
    found = ours(model, [KLToBase(weight=3.0)], batches)
    assert_same(found, ours(model, [], batches))
    assert_same(ours(model, [KLToBase(weight=0.0)], batches), found)


def test_bad_values():
    with pytest.raises(UserError, match=r"KLToBase\(weight=...\) must be 0 or more, got -1."):
        KLToBase(weight=-1)
