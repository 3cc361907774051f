"""GGUF files are read back with transformers, and refused where they hold another model."""

import json

import gguf
import pytest
import torch
from tiny_architectures import tiny_model
from transformers import AutoTokenizer

import heldout
from heldout.core.errors import UserError
from heldout.jobs.merging import gguf_file as job
from heldout.lm import gguf_writing
from heldout.lm.gguf_tokenizer import TRIED, gguf_tokenizer
from heldout.lm.load import load_model


def saved(model_type, tokenizer, folder, **changes):
    """A random model with large weights, so that logits tell one layout from another."""
    size = {"vocab_size": len(tokenizer), "bos_token_id": None, **changes}
    model = tiny_model(model_type, **size, eos_token_id=tokenizer.eos_token_id)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_embedded_model(dtype, tmp_path):
    loaded = load_model("package:heldout", device="cpu")
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    file = tmp_path / "demo.gguf"
    found = heldout.merge(tmp_path / "model", out=tmp_path / "out", dtype=dtype, gguf=file).gguf
    assert found.architecture == "llama"
    assert found.split == "smollm"
    assert found.agreement.largest_difference < 1e-3
    assert found.agreement.same_likeliest == 1
    kinds = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    reader = gguf.GGUFReader(file)
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.attn_q.weight"] == kinds[dtype]
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert "generation %}" not in reader.fields["tokenizer.chat_template"].contents()
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    for text in TRIED:
        ids = again(text, add_special_tokens=False).input_ids
        assert ids == loaded.tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("model_type", "architecture", "changes"),
    [
        ("llama", "llama", {}),
        ("mistral", "llama", {"sliding_window": None}),
        ("qwen2", "qwen2", {}),
        ("qwen3", "qwen3", {"head_dim": 128}),
        ("gemma2", "gemma2", {"query_pre_attn_scalar": 256, "head_dim": 256}),
    ],
)
def test_architectures(model_type, architecture, changes, tiny_tokenizer, tmp_path):
    folder = saved(model_type, tiny_tokenizer, tmp_path / "model", **changes)
    found = heldout.merge(folder, out=tmp_path / "out", gguf=tmp_path / "m.gguf").gguf
    assert found.architecture == architecture
    assert found.agreement.same_likeliest == 1
    assert (tmp_path / "m.gguf").stat().st_size == found.num_bytes


def test_another_layout_is_found_by_its_logits(tiny_tokenizer, tmp_path, monkeypatch):
    folder = saved("llama", tiny_tokenizer, tmp_path / "model")
    monkeypatch.setattr(gguf_writing, "_HALVES_TO_PAIRS", ())
    with pytest.raises(UserError, match=r"logits differ by .* convert_hf_to_gguf.py") as refused:
        heldout.merge(folder, out=tmp_path / "out", gguf=tmp_path / "m.gguf")
    assert str(tmp_path / "out") in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["gguf"] is None


def test_what_cannot_be_written_is_refused_before(tiny_tokenizer, tmp_path):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    scaled = saved("llama", tiny_tokenizer, tmp_path / "scaled", rope_parameters=rope)
    with pytest.raises(UserError, match=r"scaled by 'linear'.*Nothing was written"):
        heldout.merge(scaled, out=tmp_path / "out", gguf=tmp_path / "m.gguf")
    other = saved("opt", tiny_tokenizer, tmp_path / "other", word_embed_proj_dim=32)
    with pytest.raises(UserError, match=r"no architecture opt.*convert_hf_to_gguf.py"):
        heldout.merge(other, out=tmp_path / "out", gguf=tmp_path / "m.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "scaled"]


def test_tokenizers_that_are_not_byte_level_are_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    with pytest.raises(UserError, match="byte-level BPE tokenizers alone"):
        gguf_tokenizer(tokenizer, 2, [])


def test_other_tokens_are_found(tiny_tokenizer):
    import copy

    changed = copy.deepcopy(tiny_tokenizer)
    changed.add_tokens(["people"])
    with pytest.raises(UserError, match="came back other than it was"):
        job.refuse_other_tokens(changed, tiny_tokenizer, [])
