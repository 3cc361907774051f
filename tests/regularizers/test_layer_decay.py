import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from heldout.core.errors import UserError
from heldout.regularizers.layer_decay import LayerDecay
from heldout.training.steps import Steps


@pytest.fixture
def llama(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def rates(model, factor=0.5):
    """Learning rate of each trained parameter, by name, in units of the base rate."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = Steps(model, [LayerDecay(factor=factor)]).parameter_groups(1.0)
    found = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    return found


def test_falls_from_top_to_bottom(llama):
    found = rates(llama)
    assert found["model.norm.weight"] == 1
    assert found["model.layers.1.mlp.up_proj.weight"] == 0.5
    assert found["model.layers.1.input_layernorm.weight"] == 0.5
    assert found["model.layers.0.self_attn.q_proj.weight"] == 0.25
    assert found["model.embed_tokens.weight"] == 0.125


def test_an_output_layer_of_its_own_is_at_the_top():
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=8, n_layer=3, n_head=2, tie_word_embeddings=False)
    )
    found = rates(gpt2)
    assert found["lm_head.weight"] == found["transformer.ln_f.weight"] == 1
    assert found["transformer.h.2.attn.c_attn.weight"] == 0.5
    assert found["transformer.h.0.ln_1.bias"] == 0.125
    assert found["transformer.wte.weight"] == found["transformer.wpe.weight"] == 0.0625


def test_with_lora_the_highest_adapter_has_the_full_rate(llama):
    found = rates(get_peft_model(llama, LoraConfig(r=2, target_modules=["q_proj"])))
    assert {name.split(".")[4]: rate for name, rate in found.items()} == {"1": 1, "0": 0.5}


def test_factor_one_is_absent(llama):
    groups = Steps(llama, [LayerDecay(factor=1.0)]).parameter_groups(1.0)
    assert len(groups) == 1


def test_bad_values(llama):
    with pytest.raises(UserError, match=r"LayerDecay\(factor=...\) must be above 0 .* got 0"):
        LayerDecay(factor=0.0)
    model = get_peft_model(
        llama, LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1])
    )
    with pytest.raises(UserError, match="all trained weights are in one layer"):
        LayerDecay().check(model, None)
