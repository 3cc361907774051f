"""The loss on scored positions equals the plain one, on models of several makes and wrappings."""

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from heldout.lm.head import head_replaced, output_head
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.scored_loss import scored_logits, scored_loss, scored_nats

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama(**changes):
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))


MODELS = {
    "llama": llama,
    "llama_tied": lambda: llama(tie_word_embeddings=True),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=0.5)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=3.0)),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.3)),
    "lora": lambda: trained_lora(["q_proj"]),
    "lora_on_head": lambda: trained_lora(["lm_head"]),
    "head_copied": lambda: get_peft_model(
        llama(), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    ),
}
FUSED = {"llama", "llama_tied", "gpt2", "lora"}


def trained_lora(targets):
    model = get_peft_model(llama(), LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.fixture(params=MODELS)
def named_model(request):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return request.param, MODELS[request.param]()


def batch():
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(3, VOCABULARY, (3, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    labels = input_ids.clone()
    labels[0, :4] = -100
    attention_mask[1, 6:] = 0
    labels[1, 6:] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def entropy(logits_NV, _):
    return (logits_NV.softmax(-1) * logits_NV.log_softmax(-1)).sum(-1)


def plain_loss(model, inputs, terms=()):
    """Full logits, shifted by hand."""
    arguments = {name: value for name, value in inputs.items() if name != "labels"}
    logits = model(**arguments).logits[:, :-1].float()
    targets = inputs["labels"][:, 1:]
    keep = targets != -100
    logits, targets = logits[keep], targets[keep]
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return loss + sum(term(logits, targets).sum() for term in terms), len(targets)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("terms", [(), (entropy,)])
def test_loss_and_gradients_equal_the_plain_ones(named_model, terms):
    name, model = named_model
    assert (logit_path(model) is LogitPath.FUSED) == (name in FUSED)
    expected, expected_num = plain_loss(model, batch(), terms)
    loss, num_tokens = scored_loss(model, batch(), terms)
    assert num_tokens == expected_num == 18
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    expected_gradients = gradients(model, expected)
    found = gradients(model, loss)
    assert found.keys() == expected_gradients.keys()
    for parameter, gradient in found.items():
        torch.testing.assert_close(gradient, expected_gradients[parameter], rtol=1e-4, atol=1e-5)


def test_logits_and_nats_of_scored_positions(named_model):
    _, model = named_model
    expected, _ = plain_loss(model, batch())
    logits_NV, targets_N = scored_logits(model, batch())
    assert logits_NV.shape == (18, VOCABULARY)
    torch.testing.assert_close(F.cross_entropy(logits_NV, targets_N, reduction="sum"), expected)
    nats_N, rows_N = scored_nats(model, batch())
    torch.testing.assert_close(nats_N.sum(), expected.detach())
    assert rows_N.tolist() == [0] * 5 + [1] * 5 + [2] * 8
    assert not nats_N.requires_grad


def test_the_loss_of_transformers_is_the_mean():
    model = llama()
    loss, num_tokens = scored_loss(model, batch())
    torch.testing.assert_close(loss / num_tokens, model(**batch()).loss)


def test_nothing_scored_is_zero_and_trains():
    model = llama()
    inputs = batch()
    inputs["labels"].fill_(-100)
    loss, num_tokens = scored_loss(model, inputs)
    loss.backward()
    assert (loss.item(), num_tokens) == (0.0, 0)


def test_virtual_tokens_before_the_text():
    model = get_peft_model(llama(), PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    inputs = batch()
    inputs["labels"][:, 0] = -100  # the first token would be predicted by a virtual one
    loss, num_tokens = scored_loss(model, inputs)
    torch.testing.assert_close(loss / num_tokens, model(**inputs).loss)


def test_the_head_is_given_back_even_after_an_exception():
    model = llama()
    before = model(**batch()).logits
    with pytest.raises(ZeroDivisionError), head_replaced(model, lambda *_: 1 / 0):
        model(**batch())
    assert "forward" not in vars(output_head(model))
    assert torch.equal(model(**batch()).logits, before)


def test_a_patch_of_others_is_kept():
    model = llama()
    head = output_head(model)
    original = head.forward
    head.forward = lambda hidden: original(hidden) * 2
    patched = head.forward
    assert logit_path(model) is LogitPath.SCORED
    logits_NV, _ = scored_logits(model, batch())
    assert head.forward is patched
    head.forward = original
    torch.testing.assert_close(logits_NV, scored_logits(model, batch())[0] * 2)


def test_a_hook_of_others_is_kept():
    model = llama()
    expected, _ = scored_loss(model, batch())
    handle = output_head(model).register_forward_hook(lambda _, __, logits: logits * 2)
    assert logit_path(model) is LogitPath.SCORED
    doubled, _ = scored_loss(model, batch())
    handle.remove()
    assert (doubled - expected).abs() > 1e-3


def test_works_under_ddp_compile_wrappers_and_gradient_checkpointing(tmp_path):
    model = llama()
    expected, _ = scored_loss(model, batch())
    wanted = gradients(model, expected)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        loss, _ = scored_loss(wrapped, batch())
        found = gradients(model, loss)
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, wanted)
    model.gradient_checkpointing_enable()
    model.train()
    torch.testing.assert_close(gradients(model, scored_loss(model, batch())[0]), wanted)
    compiled = torch.compile(model, backend="eager")
    assert output_head(compiled) is model.lm_head
