"""A model of transformers as one GGUF file, laid out as llama.cpp's converter lays it out.

What an architecture needs beyond names is a short table here; whether it is right is not believed:
``heldout.jobs.merging.gguf_file`` reads the file back and compares logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heldout.core.errors import UserError
from heldout.lm.gguf_tokenizer import GgufTokenizer

# H heads, D dimensions of a head, E width

_ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}  # others go by their own names
_HALVES_TO_PAIRS = ("llama",)  # rows of queries and keys, for another layout of rotary positions
_NORMS_PLUS_ONE = ("gemma2", "gemma3")
_WINDOWED = ("gemma2", "gemma3")  # llama.cpp knows which layers look back a window only
_FILE_TYPES = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}


@dataclass(frozen=True)
class GgufLayout:
    """The architecture's name in the file, and the name there of each weight."""

    architecture: str
    names: dict[str, str]


def gguf_layout(model: Any) -> GgufLayout:
    """Where each weight of ``model`` goes; UserError, without a final stop, where one has no place.

    Also refused are scaled rotary positions, and windows of attention that a file cannot tell of.
    """
    import gguf

    config = model.config.get_text_config()
    kind = config.model_type
    architecture = _ARCHITECTURES.get(kind, kind)
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        raise UserError(f"--gguf cannot write {kind}: the gguf package has no architecture {kind}")
    for rope in _ropes(config).values():
        if rope.get("rope_type", "default") != "default":
            raise UserError(f"--gguf cannot write rotary positions scaled by {rope['rope_type']!r}")
    layers = set(getattr(config, "layer_types", None) or ())
    if layers - {"full_attention"} and architecture not in _WINDOWED:
        raise UserError(f"--gguf cannot write {kind} with layers of {', '.join(sorted(layers))}")
    places = gguf.get_tensor_name_map(known[architecture], config.num_hidden_layers)
    names = {}
    for name in model.state_dict():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        place = places.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise UserError(f"--gguf has no place for {name} of {kind}")
        names[name] = place
    return GgufLayout(architecture, names)


def write_gguf(
    model: Any, layout: GgufLayout, tokenizer: GgufTokenizer, file: Path, dtype: torch.dtype
) -> None:
    """Write ``model`` in ``dtype``, vectors in float32; memory holds all of it once more."""
    import gguf

    writer = gguf.GGUFWriter(file, layout.architecture)
    try:
        _add_settings(writer, model.config.get_text_config(), layout.architecture)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
        _add_tokenizer(writer, tokenizer)
        state = model.state_dict()
        for name, place in layout.names.items():
            _add_weight(writer, place, _laid_out(state[name], place, model, layout), dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_settings(writer: Any, config: Any, architecture: str) -> None:
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    writer.add_name("model")  # transformers' reader looks for one
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or num_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    if (epsilon := getattr(config, "rms_norm_eps", None)) is not None:
        writer.add_layer_norm_rms_eps(epsilon)
    for name in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"):
        if (epsilon := getattr(config, name, None)) is not None:
            writer.add_layer_norm_eps(epsilon)
    ropes = _ropes(config)
    rope = ropes.get("full_attention") or ropes.get("") or {}
    if rope:
        share = rope.get("partial_rotary_factor") or 1.0
        writer.add_rope_dimension_count(int(head_dim * share))
        writer.add_rope_freq_base(float(rope.get("rope_theta") or 10000.0))
    if (local := ropes.get("sliding_attention")) is not None:
        writer.add_rope_freq_base_swa(float(local.get("rope_theta") or 10000.0))
    if architecture in _WINDOWED:
        writer.add_sliding_window(config.sliding_window)
    if (cap := getattr(config, "attn_logit_softcapping", None)) is not None:
        writer.add_attn_logit_softcapping(cap)
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        writer.add_final_logit_softcapping(cap)


def _ropes(config: Any) -> dict[str, Mapping[str, Any]]:
    """The settings of rotary positions by kind of layer; one for all under the empty name."""
    found = getattr(config, "rope_parameters", None) or {}
    if all(isinstance(each, Mapping) for each in found.values()):
        return {name: each for name, each in found.items() if each}
    return {"": found}


def _add_tokenizer(writer: Any, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.split)
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types(list(tokenizer.types))
    writer.add_token_merges(list(tokenizer.merges))
    for name, number in tokenizer.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(tokenizer.adds_bos)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _laid_out(weight: torch.Tensor, place: str, model: Any, layout: GgufLayout) -> torch.Tensor:
    weight = weight.detach().cpu().float()
    config = model.config.get_text_config()
    if layout.architecture in _NORMS_PLUS_ONE and place.endswith("norm.weight"):
        return weight + 1
    if layout.architecture in _HALVES_TO_PAIRS and (".attn_q." in place or ".attn_k." in place):
        num_heads = config.num_attention_heads
        if ".attn_k." in place:
            num_heads = getattr(config, "num_key_value_heads", None) or num_heads
        halves_H2DE = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
        return halves_H2DE.swapaxes(1, 2).reshape(weight.shape)
    return weight


def _add_weight(writer: Any, place: str, weight: torch.Tensor, dtype: torch.dtype) -> None:
    import gguf

    values = np.ascontiguousarray(weight.numpy())
    if values.ndim < 2 or dtype == torch.float32:
        writer.add_tensor(place, values)
    elif dtype == torch.float16:
        writer.add_tensor(place, values.astype(np.float16))
    else:
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(place, gguf.quants.quantize(values, kind), raw_dtype=kind)
