import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_architectures import tiny_model
from training_runs import batches, equal, train
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from heldout.core.errors import UserError
from heldout.lm.weights import seed_of
from heldout.regularizers.layer_drop import LayerDrop, drawn, skip_chances
from heldout.training.steps import Steps


@pytest.fixture
def llama(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


@pytest.fixture
def gpt2():
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "n_embd": 16, "n_layer": 2, "n_head": 2}
    none = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **none))


def layers_of(model):
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def that_skips(*pattern, share=0.4, rescale=True):
    """Skips just these of the layers at step 0."""
    chances = [share] * len(pattern)
    seed = next(s for s in range(999) if drawn(chances, seed_of(s, 0)) == list(pattern))
    return LayerDrop(share=share, rising=False, rescale=rescale, seed=seed)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_without_rescaling_it_is_the_model_without_these_layers(family, request):
    model = request.getfixturevalue(family).train()
    smaller = copy.deepcopy(model)
    del layers_of(smaller)[1]
    regularizer = that_skips(False, True, rescale=False)
    batch, called = batches(1)[0], []
    layers_of(model)[1].mlp.register_forward_hook(lambda *_: called.append(1))
    with regularizer.attached(model):
        regularizer.before_step(model, 0)
        torch.testing.assert_close(model(**batch).logits, smaller(**batch).logits)
        assert not called, "the layer was computed"
        torch.testing.assert_close(
            model.eval()(**batch).logits, model(**batch, use_cache=False).logits
        )
        assert called, "evaluation must see the whole model"


def test_what_kept_layers_add_is_divided_by_their_chance(gpt2):
    """Against a forward written out, in float64."""
    model = gpt2.double().train()
    ids = batches(1)[0]["input_ids"]
    regularizer = that_skips(True, False)
    with regularizer.attached(model):
        regularizer.before_step(model, 0)
        found = model(ids).logits
    body = model.transformer
    hidden = body.wte(ids) + body.wpe(torch.arange(ids.shape[1]))
    with_branches = body.h[1](hidden)
    hidden = hidden + (with_branches - hidden) / 0.6
    torch.testing.assert_close(found, model.lm_head(body.ln_f(hidden)))


@pytest.mark.parametrize("lora", [False, True])
def test_skipped_weights_have_a_gradient_of_zero_not_none(llama, lora):
    model = llama
    if lora:
        model = get_peft_model(llama, LoraConfig(r=2, target_modules="all-linear"))
    steps = Steps(model, [that_skips(False, True)])
    with steps.attached():
        steps.gradient(batches(2))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad and "layers.1" in name:
            assert not parameter.grad.any()
    kept = [p.grad for n, p in model.named_parameters() if "layers.0" in n and p.requires_grad]
    assert any(gradient.any() for gradient in kept)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_skips_the_same_layers(llama, reentrant):
    other = copy.deepcopy(llama)
    other.gradient_checkpointing_enable({"use_reentrant": reentrant})
    other.enable_input_require_grads()
    regularizer = LayerDrop(share=0.6, seed=3)
    one, two = (train(model, [regularizer], num_steps=3)[1][-1] for model in (llama, other))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=1e-6, rtol=1e-5)


def test_chances_rise_to_the_share_at_the_top():
    assert skip_chances(4, 0.2, rising=True) == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert skip_chances(3, 0.2, rising=False) == [0.2] * 3
    draws = torch.tensor([drawn([0.1, 0.5], seed_of(0, step)) for step in range(4000)])
    torch.testing.assert_close(
        draws.double().mean(0), torch.tensor([0.1, 0.5]).double(), atol=0.03, rtol=0
    )
    both = draws.all(1).double().mean()
    assert abs(both - 0.05) < 0.015, "layers are drawn independently"


def test_looking_at_the_model_leaves_every_module_in_its_mode(llama):
    llama.train()
    llama.model.layers[0].eval()
    before = [module.training for module in llama.modules()]
    LayerDrop().check(llama, None)
    assert [module.training for module in llama.modules()] == before


def test_share_zero_is_absent(llama):
    other = copy.deepcopy(llama)
    assert equal(train(llama, [LayerDrop(share=0.0)])[1][-1], train(other, [])[1][-1])


def test_refuses_layers_that_return_more_than_hidden_states():
    with pytest.raises(UserError, match=r"LayerDrop\(share=...\) must be at least 0 and under 1"):
        LayerDrop(share=1.0)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=8, n_layer=2, n_head=2))
    with pytest.raises(UserError, match=r"return more than hidden states; use Dropout\(hidden"):
        LayerDrop().check(bloom, None)


@pytest.mark.parametrize("model_type", ["gemma3n_text", "gemma4_text"])
def test_layers_whose_keys_others_share_are_never_skipped(model_type):
    model = tiny_model(model_type)
    steps = Steps(model, [LayerDrop(share=0.9, rising=False)])
    skipped = set()
    with steps.attached():
        for step in range(12):
            steps.step = step
            steps.gradient(batches(1, vocabulary=90))
            divisors = steps.regularizers[0]._divisors
            skipped |= {index for index, divisor in divisors.items() if divisor is None}
    assert skipped == {2, 3}, "the last two layers read the keys of the first two"
