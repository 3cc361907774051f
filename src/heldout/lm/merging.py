"""Merge an adapter into its base, and tell in which type of number a model's files hold it."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig

from heldout.core.errors import UserError
from heldout.lm.fit_of_weights import one_line
from heldout.lm.quantized import quantization_of
from heldout.lm.source import adapter_base, find_source

_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_dtype(target: str) -> torch.dtype:
    """The type of most weights of a model, of an adapter that of its base; reads headers alone.

    float32 where that cannot be told, of a GGUF file or quantized weights.
    """
    source = find_source(target)
    if source.is_adapter:
        return stored_dtype(adapter_base(source))
    if source.path is None:
        try:
            named: Any = getattr(AutoConfig.from_pretrained(source.name), "dtype", None)
        except Exception:  # of an adapter on the Hub, of no connection: loading it tells
            named = None
        return named if named in _STORED.values() else torch.float32
    if source.is_gguf:
        return torch.float32
    return _of_most(source.path)


def _of_most(folder: Path) -> torch.dtype:
    found: Counter[str] = Counter()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118  # no mapping
                part = weights.get_slice(key)
                found[part.get_dtype()] += torch.Size(part.get_shape()).numel()
    return _STORED.get(found.most_common(1)[0][0], torch.float32) if found else torch.float32


def refusal_of_quantized(name: str, load_in: str) -> UserError:
    """Why an adapter on a base of fewer bits is not merged."""
    return UserError(
        f"{name} was trained on a base in {load_in}, whose weights cannot take it up without being "
        "rounded again: serve it as an adapter on that base, with PEFT."
    )


def merge_into_base(model: Any, name: str) -> Any:
    """The base with the adapter of a PEFT ``model`` in its weights; takes the model apart.

    Embeddings that share their weights with the head are parted where the adapter changes one of
    them alone. Raises UserError for adapters that are no change of weights (prompt tuning), and
    where the merged weights are not finite.
    """
    if not hasattr(model, "merge_and_unload"):
        kind = next(iter(model.peft_config.values())).peft_type
        raise UserError(
            f"{name} is an adapter of type {str(kind).rpartition('.')[2]}, which changes no weight "
            "of its base and cannot be merged: serve it as an adapter, with PEFT."
        )
    if (quantization := quantization_of(model)) is not None:
        raise refusal_of_quantized(name, quantization.load_in)
    _part_changed_head(model)
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except Exception as error:  # PEFT's many types share no exception
        raise UserError(f"{name} cannot be merged into its base: {one_line(error)}") from error
    return merged


def in_dtype(model: Any, dtype: torch.dtype, name: str) -> Any:
    """``model`` with its weights in ``dtype``; UserError where one is beyond what that holds."""
    for key, parameter in model.named_parameters():
        if not torch.isfinite(parameter.to(dtype)).all():
            words = str(dtype).removeprefix("torch.")
            raise UserError(
                f"{name}: {words} cannot hold all weights of {key}: give --dtype bfloat16 or "
                "float32. Nothing was written."
            )
    return model.to(dtype)


def _part_changed_head(model: Any) -> None:
    """Give the head weights of its own where it is tied and either end of the model is adapted."""
    base = model.get_base_model()
    head, words = base.get_output_embeddings(), base.get_input_embeddings()
    own = [each for each in (head, words) if each is not None]
    if len(own) < 2 or not any(_is_adapted(each) for each in own):
        return
    head, words = (getattr(each, "base_layer", each) for each in own)
    if getattr(head, "weight", None) is not getattr(words, "weight", None):
        return
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    base.config.get_text_config().tie_word_embeddings = False
    base.config.tie_word_embeddings = False


def _is_adapted(layer: nn.Module) -> bool:
    return hasattr(layer, "base_layer") or hasattr(layer, "modules_to_save")
