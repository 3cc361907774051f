import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from heldout.core.errors import UserError
from heldout.regularizers.dropout import Dropout


@pytest.fixture
def llama(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


@pytest.fixture
def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0)
    )


def differs(model, training):
    """Whether two passes over the same text differ."""
    ids = torch.arange(20)[None] + 3
    model.train(training)
    with torch.no_grad():
        return not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("place", ["hidden", "attention", "embedding"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_drops_in_training_only_and_is_gone_afterwards(place, family, request):
    model = request.getfixturevalue(family)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    regularizer = Dropout(**{place: 0.5})
    regularizer.check(model, None)
    with regularizer.attached(model):
        assert differs(model, training=True)
        assert not differs(model, training=False)
    assert not differs(model, training=True)


def test_adapter_dropout_swaps_the_identity_that_peft_leaves(llama):
    model = get_peft_model(llama, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert not differs(model, training=True)
    with Dropout(adapter=0.5).attached(model):
        assert differs(model, training=True)
        assert not differs(model, training=False)
    assert not differs(model, training=True)


def test_the_expected_value_is_kept(llama):
    """Inverted dropout: the mean over many passes is the output without it."""
    embedding = llama.get_input_embeddings()
    ids = torch.full((4000, 1), 7)
    llama.train()
    with torch.no_grad():
        plain = embedding(ids[:1])[0, 0]
        with Dropout(embedding=0.25).attached(llama):
            dropped = embedding(ids)[:, 0]
    assert ((dropped == 0).float().mean() - 0.25).abs() < 0.01
    torch.testing.assert_close(dropped.mean(0), plain, atol=0.003, rtol=0.05)


def test_what_would_do_nothing_is_refused(llama):
    with pytest.raises(UserError, match=r"no LoRA layers; set dropout\.hidden instead"):
        Dropout(adapter=0.1).check(llama, None)
    with pytest.raises(UserError, match=r"Dropout\(hidden=...\) must be at least 0 and under 1"):
        Dropout(hidden=1.0)
