"""Put an adapter's weights on its base, all of them and nothing else, or say what does not fit."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftType, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.utils import load_peft_weights, set_peft_model_state_dict

from heldout.core.errors import UserError
from heldout.lm.adapters import adapter_start, takes_from_base
from heldout.lm.fit_of_weights import one_line, refuse_not_finite
from heldout.lm.source import read_json

_WRAPPERS = re.compile(r"(^|\.)_orig_mod\.|^(module\.)+")
_WAY_OUT = "name the base that it was trained on in adapter_config.json (base_model_name_or_path)"
_LOST_BEGINNINGS = ("corda", "lora_ga", "pissa_niter")


def with_adapter(base: Any, folder: Path, name: str, base_name: str) -> Any:
    """``base`` with the adapter of ``folder`` on it, as a PEFT model, not trainable.

    The base gets the rows that tokens added in training need. Names that compile or DDP wrappers
    put before the weights' own are taken off. Raises UserError for weights that are missing, too
    many, of another shape or not finite, and for a beginning that cannot be made again.
    """
    config = _config(folder, name)
    weights = {_WRAPPERS.sub(r"\1", key): value for key, value in _read(folder, name).items()}
    refuse_not_finite(weights, f"Adapter {name}")
    _grow(base, weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was renamed from")
        try:
            model = get_peft_model(base, config)
        except Exception as error:  # PEFT's many types share no exception
            raise UserError(
                f"Adapter {name} does not fit its base {base_name}: {one_line(error)}"
            ) from error
    if takes_from_base(config):
        for parameter in _factors(model):
            parameter.requires_grad_(True)
        adapter_start(model)  # before the trained weights take its place
        for parameter in _factors(model):
            parameter.requires_grad_(False)
    does_not_fit = f"Adapter {name} does not fit its base {base_name}: "
    _check_shapes(model, weights, does_not_fit)
    try:
        left = set_peft_model_state_dict(model, weights)
    except Exception as error:
        raise UserError(f"{does_not_fit}{one_line(error)}") from error
    _check_complete(model, config, left, weights, does_not_fit)
    return model


def _config(folder: Path, name: str) -> Any:
    values = read_json(folder / "adapter_config.json")
    kind = values.get("peft_type")
    if kind not in list(PeftType.__members__):
        raise UserError(
            f"Adapter {name}: peft_type in adapter_config.json must be one of PEFT's, such as "
            f"LORA, got {kind!r}."
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # each type checks its values in its own way
        raise UserError(
            f"Adapter {name}: adapter_config.json is wrong: {one_line(error)}"
        ) from None
    beginning = str(getattr(config, "init_lora_weights", "")).lower()
    if beginning.startswith(_LOST_BEGINNINGS):
        raise UserError(
            f"Adapter {name} began as {beginning}, which took a part of the base weights that this "
            "folder does not tell: save it again with save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...), which makes it plain LoRA."
        )
    config.inference_mode = True
    return config


def _read(folder: Path, name: str) -> dict[str, torch.Tensor]:
    try:
        return load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        raise UserError(f"Adapter {name} cannot be read: {one_line(error)}") from error


def _grow(base: Any, weights: dict[str, torch.Tensor]) -> None:
    """Give the base as many embeddings as the adapter was saved with."""
    embedding = base.get_input_embeddings()
    place = next((n for n, module in base.named_modules() if module is embedding), None)
    names = [f"{place}.weight", f"{place}.modules_to_save.weight"]
    rows = [len(v) for k, v in weights.items() if k.removeprefix("base_model.model.") in names]
    if rows and rows[0] > embedding.weight.shape[0]:
        base.resize_token_embeddings(rows[0], mean_resizing=False)


def _check_shapes(model: Any, weights: dict[str, torch.Tensor], does_not_fit: str) -> None:
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    for key in sorted(weights.keys() & expected.keys()):
        if weights[key].shape != expected[key].shape:
            raise UserError(
                f"{does_not_fit}{key} is {_shape(weights[key])} in its file and "
                f"{_shape(expected[key])} here: {_WAY_OUT}."
            )


def _check_complete(
    model: Any, config: Any, left: Any, weights: dict[str, torch.Tensor], does_not_fit: str
) -> None:
    """``left`` is what ``load_state_dict`` could not place, under the model's own names."""
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type) or "prompt_encoder."
    parts = (prefix, ".modules_to_save.", ".token_adapter.")
    wanted = [key for key in model.state_dict() if any(part in key for part in parts)]
    missing = sorted(set(wanted) & set(left.missing_keys))
    extra = sorted(key for key in left.unexpected_keys if not _is_twin(key, weights))
    if missing and not config.is_prompt_learning:
        found = f", and {extra[0]} has no place in the model" if extra else ""
        raise UserError(
            f"{does_not_fit}{len(missing)} of {len(wanted)} weights are not in its file, such as "
            f"{missing[0]}{found}: {_WAY_OUT}."
        )
    if extra and config.peft_type == PeftType.LORA:
        raise UserError(
            f"{does_not_fit}{len(extra)} weights of its file have no place in the model, such as "
            f"{extra[0]}: {_WAY_OUT}."
        )


def _is_twin(key: str, weights: dict[str, torch.Tensor]) -> bool:
    """Whether the file holds the weight under another name too, as PEFT saves tied embeddings."""
    value = weights.get(key)
    return value is not None and any(
        name != key and value.shape == other.shape and torch.equal(value, other)
        for name, other in weights.items()
    )


def _factors(model: Any) -> list[Any]:
    return [p for n, p in model.named_parameters() if "lora_" in n]


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
