import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.jobs.kit.target import Target
from heldout.lm.load import from_scratch
from heldout.lm.norms import with_norms

EXISTING = [
    ("", "", "llama"),
    ("rms", "pre", "llama"),
    ("layer", "pre", "stablelm"),
    ("layer", "", "stablelm"),
    ("rms", "branch_output", "olmo2"),
    ("", "branch_output", "olmo2"),
    ("layer", "post", "opt"),
]
SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(("norm", "position", "model_type"), EXISTING)
def test_trains_and_loads_anywhere(norm, position, model_type, tiny_tokenizer, tmp_path):
    config = {"model_type": "llama", **SIZES}
    loaded = from_scratch(config, tiny_tokenizer, seed=0, norm=norm, norm_position=position)
    model = loaded.model
    assert model.config.model_type == model_type
    llama = from_scratch(config, tiny_tokenizer, seed=0)
    assert model.num_parameters() == pytest.approx(llama.model.num_parameters(), rel=0.05)
    ids = tiny_tokenizer("The with statement wraps a block.", return_tensors="pt").input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = model.train()(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    model.eval().save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(again) is type(model)
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_nothing_else_differs_where_it_says_so():
    """The same weights in both, and norms that are one function, give the same outputs."""
    config = LlamaConfig(**SIZES | {"num_key_value_heads": 2}, tie_word_embeddings=True)
    torch.manual_seed(0)
    llama = AutoModelForCausalLM.from_config(config).eval()
    stablelm = AutoModelForCausalLM.from_config(with_norms(config, "layer", "pre")).eval()
    missing, unexpected = stablelm.load_state_dict(llama.state_dict(), strict=False)
    assert not unexpected
    assert all("norm.bias" in n or "layernorm.bias" in n for n in missing), missing
    for layers in (llama.model.layers, stablelm.model.layers):
        for layer in layers:
            layer.input_layernorm = torch.nn.Identity()
            layer.post_attention_layernorm = torch.nn.Identity()
    llama.model.norm = stablelm.model.norm = torch.nn.Identity()
    ids = torch.arange(3, 23)[None]
    torch.testing.assert_close(stablelm(ids).logits, llama(ids).logits)


def test_where_the_norms_are():
    config = LlamaConfig(**SIZES)
    kinds = {}
    for norm, position, model_type in EXISTING:
        model = AutoModelForCausalLM.from_config(with_norms(config, norm, position))
        names = [type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__]
        assert len(set(names)) == 1
        kinds[model_type] = (names[0].removeprefix("Olmo2").removeprefix("Llama"), len(names))
    assert kinds == {
        "llama": ("RMSNorm", 5),
        "stablelm": ("LayerNorm", 5),
        "olmo2": ("RMSNorm", 9),  # with those of queries and keys
        "opt": ("LayerNorm", 4),
    }
    opt = with_norms(config, "layer", "post")
    assert (opt.do_layer_norm_before, opt.dropout, opt.enable_bias) == (False, 0.0, False)


def test_what_does_not_exist_is_refused(tiny_model_dir, tmp_path):
    config = LlamaConfig(**SIZES)
    with pytest.raises(UserError, match="There are: rms with pre, layer with pre, rms with branch"):
        with_norms(config, "rms", "post")
    with pytest.raises(UserError, match="not gpt2: use a configuration with model_type llama"):
        with_norms(GPT2Config(), "layer", "")
    with pytest.raises(UserError, match="set both to false"):
        with_norms(LlamaConfig(**SIZES, mlp_bias=True), "layer", "pre")
    with pytest.raises(UserError, match="got 16: leave head_dim out"):
        with_norms(LlamaConfig(**SIZES, head_dim=16), "layer", "pre")
    recipe = Recipe().replace(model={"method": "full", "norm": "layer"})
    with pytest.raises(UserError, match=r"give --from-scratch config\.json"):
        Target(str(tiny_model_dir)).load(recipe)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **SIZES}))
    loaded = Target(str(tiny_model_dir), str(path)).load(recipe)
    assert loaded.model.config.model_type == "stablelm"
