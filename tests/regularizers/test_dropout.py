import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_architectures import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from heldout.core.errors import UserError
from heldout.lm.layers import decoder_layers
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


@pytest.mark.parametrize("place", ["hidden", "attention", "embedding", "heads"])
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


FAMILIES = {
    "bloom": {"n_head": 4},  # adds the residual inside of a branch, hence number in the branch
    "falcon": {"alibi": False},  # has the same number, and does not read it
    "gpt_neo": {"attention_types": [[["global"], 2]], "num_layers": 2, "num_heads": 4},
    "gpt_neox": {},  # two modules in the layer
    "granitemoe": {"num_local_experts": 4, "num_key_value_heads": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},  # one number in the layer for both
    "phi": {},  # one module in the layer for both
    "phi3": {"pad_token_id": 0},  # two modules in the layer
    "qwen2": {"num_key_value_heads": 2},
    "stablelm": {"num_key_value_heads": 4},  # one module in the layer for one of two
    "starcoder2": {"num_key_value_heads": 2},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_branch_of_every_layer_is_dropped_once(family):
    """With two branches at .6, .36 of the numbers pass a layer as they came."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(family, **sizes, num_attention_heads=4, **FAMILIES[family])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    regularizer = Dropout(hidden=0.6)
    regularizer.check(model, None)
    unchanged = []

    def compare(layer, arguments, named, output):
        entered = arguments[0] if arguments else named["hidden_states"]
        left = output[0] if isinstance(output, tuple) else output
        unchanged.append((entered == left).float().mean().item())

    for layer in decoder_layers(model):
        layer.register_forward_hook(compare, with_kwargs=True)
    ids = torch.randint(3, 60, (16, 20))
    with torch.no_grad(), regularizer.attached(model):
        model.train()(ids, use_cache=False)
    assert unchanged == pytest.approx([0.36, 0.36], abs=0.03)


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


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_whole_heads_of_a_row_are_dropped(family, request):
    """What enters the projection: each head of each row is zero throughout, or divided by .6."""
    model = request.getfixturevalue(family).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    first = model.model.layers[0].self_attn if family == "llama" else model.transformer.h[0].attn
    projection = first.o_proj if family == "llama" else first.c_proj
    ids = torch.randint(3, 60, (500, 6), generator=torch.Generator().manual_seed(0))
    seen = []
    with torch.no_grad(), Dropout(heads=0.4).attached(model):
        for training in (False, True):
            first.train(training)
            projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            model(ids)
            projection._forward_pre_hooks.popitem()
    plain_BTHE, dropped_BTHE = (entry.view(500, 6, 4, 8) for entry in seen)
    is_kept_BH = (dropped_BTHE != 0).any(3).any(1)
    expected = plain_BTHE / 0.6 * is_kept_BH[:, None, :, None]
    torch.testing.assert_close(dropped_BTHE, expected)
    assert is_kept_BH.double().mean(0).sub(0.6).abs().max() < 0.08
    pairs = (is_kept_BH[:, 0] & is_kept_BH[:, 1]).double().mean()
    assert abs(pairs - 0.36) < 0.08, "heads are dropped independently"


def test_heads_under_lora(llama):
    model = get_peft_model(llama, LoraConfig(r=4, target_modules="all-linear"))
    with Dropout(heads=0.5).attached(model):
        assert differs(model, training=True)
        assert not differs(model, training=False)
    assert not differs(model, training=True)


def test_a_schedule_scales_every_place(llama):
    model = get_peft_model(llama, LoraConfig(r=4, target_modules="all-linear"))
    regularizer = Dropout(
        hidden=0.2, attention=0.4, embedding=0.2, adapter=0.6, heads=0.2, schedule="rise:0.5"
    )
    attention = model.base_model.model.model.layers[0].self_attn
    numbers = []
    with regularizer.attached(model):
        assert not differs(model, training=True)
        for progress in (0.25, 0.5, 0.75):
            regularizer.set_progress(progress)
            regularizer.before_step(model, 1)
            dropout = attention.q_proj.lora_dropout["default"]
            numbers.append((attention.attention_dropout, dropout.p))
            assert differs(model, training=True)
    assert numbers == [(0.2, 0.3), (0.4, 0.6), (0.4, 0.6)]
    assert attention.attention_dropout == 0
    assert isinstance(attention.q_proj.lora_dropout["default"], torch.nn.Identity)


def test_what_would_do_nothing_is_refused(llama):
    with pytest.raises(UserError, match=r"no LoRA layers; set dropout\.hidden instead"):
        Dropout(adapter=0.1).check(llama, None)
    with pytest.raises(UserError, match=r"Dropout\(hidden=...\) must be at least 0 and under 1"):
        Dropout(hidden=1.0)


@pytest.mark.parametrize(
    ("model_type", "place", "reason"),
    [
        ("mamba", "attention", r"no attention weights were found in MambaForCausalLM"),
        ("rwkv", "heads", r"no output projection of attention heads was found"),
        ("reformer", "hidden", r"computes its layers again in a backward of its own"),
        ("zaya", "hidden", r"2 of 2 layers are more than their input and what branches add to it"),
    ],
)
def test_a_place_that_a_model_does_not_have_is_refused(model_type, place, reason):
    with pytest.raises(UserError, match=reason):
        Dropout(**{place: 0.1}).check(tiny_model(model_type), None)
