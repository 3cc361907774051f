"""Dropout does what it says in every branch of every layer, whatever the layer is called."""

import pytest
from dropping import dropped_attention, dropped_embedding, dropped_heads, dropped_hidden
from tiny_architectures import ALL, NOT_BUILT, tiny_model

HIDDEN = [
    "bamba",
    "bert",
    "camembert",
    "dbrx",
    "falcon",
    "falcon_h1",
    "gemma3n_text",
    "gemma4_text",
    "git",
    "gptj",
    "granitemoehybrid",
    "jamba",
    "lfm2",
    "modernbert-decoder",
    "xlstm",
]
ATTENTION = ["diffllama", "falcon", "git", "gpt_oss", "persimmon", "qwen3_next"]
HEADS = ["git", "inkling_text", "laguna", "gemma4_text"]
BUILT = [name for name in ALL if name not in NOT_BUILT]


@pytest.mark.parametrize("model_type", HIDDEN)
def test_every_branch_of_every_layer_drops(model_type):
    assert dropped_hidden(tiny_model(model_type)) == "effective"


@pytest.mark.parametrize("model_type", ATTENTION)
def test_the_rate_reaches_every_attention_kernel(model_type):
    assert dropped_attention(tiny_model(model_type)) == "effective"


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", ["falcon", "llama"])
def test_the_rate_reaches_fused_kernels_too(model_type, implementation):
    model = tiny_model(model_type)
    model.set_attn_implementation(implementation)
    assert dropped_attention(model) == "effective"


@pytest.mark.parametrize("model_type", HEADS)
def test_heads_are_those_of_the_text_layers(model_type):
    assert dropped_heads(tiny_model(model_type)) == "effective"


@pytest.mark.parametrize("model_type", ["modernbert-decoder", "phi3", "phi4_multimodal", "gpt2"])
def test_embeddings_are_dropped_once(model_type):
    assert dropped_embedding(tiny_model(model_type)) == "effective"


@pytest.mark.slow
@pytest.mark.parametrize("model_type", BUILT)
def test_every_architecture_drops_or_refuses(model_type):
    for drop in (dropped_hidden, dropped_attention, dropped_heads, dropped_embedding):
        found = drop(tiny_model(model_type))
        assert found == "effective" or found.startswith("refused: "), f"{drop.__name__}: {found}"
