"""Whether a model's weights are those that its configuration describes, all of them and sound."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from heldout.core.errors import UserError

_WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and of DDP
_OF_LAYER = re.compile(r"(.*?\.)(\d+)\.")


def wrapper_names(folder: Path) -> dict[str, str] | None:
    """A mapping for transformers where every weight's name begins as a wrapper writes it."""
    names = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            names += list(weights.keys())
    if names and all(name.startswith(_WRAPPERS) for name in names):
        return {r"^(_orig_mod\.|module\.)+": ""}
    return None


def refuse_misfits(model: Any, report: Mapping[str, Any], name: str) -> None:
    """UserError for weights that are missing, of other shapes, of more layers, or not finite.

    ``report`` is transformers' own of the loading. Costs one pass over the weights.
    """
    if wrong := sorted(report["mismatched_keys"]):
        key, in_file, here = wrong[0]
        raise UserError(
            f"Model {name}: {_weights(wrong)} of other shapes than config.json says, such as "
            f"{key}: {_shape(in_file)} in the file, {_shape(here)} by the configuration. Use the "
            "config.json that was saved with them."
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"Model {name} is incomplete: {_weights(missing)} missing, such as "
            f"{missing[0]}; they would be random. Is it a model without its output layer?"
        )
    built = {m[1] for key, _ in model.named_parameters() if (m := _OF_LAYER.match(key))}
    more = [k for k in report["unexpected_keys"] if (m := _OF_LAYER.match(k)) and m[1] in built]
    if more:
        raise UserError(
            f"Model {name} has weights of more layers than config.json says, such as "
            f"{sorted(more)[0]}: set num_hidden_layers there to what was trained."
        )
    refuse_not_finite(dict(model.named_parameters()), f"Model {name}")


def refuse_not_finite(weights: Mapping[str, torch.Tensor], what: str) -> None:
    """UserError for a weight that is NaN or infinite, as everything computed from it would be."""
    for key, weight in weights.items():
        num = weight.numel() - int(torch.isfinite(weight).sum())
        if num:
            raise UserError(
                f"{what}: {num} of {weight.numel()} numbers of {key} are NaN or infinite: "
                "its training diverged, or the file is damaged. Take an earlier checkpoint."
            )


def one_line(error: Exception) -> str:
    """What an exception of a library says, without its own headings and line breaks."""
    text = " ".join(str(error).split())
    text = re.sub(r"^(Class v|V)alidation error for \S+ '\w+': (\w+Error: )?", "", text)
    text = text.split(" This could be because")[0]  # advice on installing, a paragraph long
    return f"{text} is missing or not known" if isinstance(error, KeyError) else text


def _weights(names: Sequence[Any]) -> str:
    return "1 weight is" if len(names) == 1 else f"{len(names)} weights are"


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))
