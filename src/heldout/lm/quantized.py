"""Frozen weights held in four or eight bits, for adapters on them (QLoRA).

bitsandbytes quantizes every linear layer but the output layer as it is read: to nf4 with scales
that are quantized too, or to int8 with one scale a row; all else stays float32. A layer's weights
are made whole again for each product and dropped after it. So training and measuring see the same
weights, and what a row gets does not depend on the rows beside it.
"""

import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from heldout.core.errors import UserError
from heldout.core.files import write_text
from heldout.lm.source import read_json

# D out, E in

NOTE = "quantized_base.json"  # beside an adapter's weights: how its base was loaded
_KEPT_WITH = "_heldout_quantization"  # lies on the base model, so that copies have it too
_BLOCK, _SCALES = 64, 256  # of nf4: weights with one scale, scales with one of their own


@dataclass(frozen=True)
class Quantization:
    """``load_in`` is 4bit or 8bit; ``compute`` the type of products, float32 or bfloat16."""

    load_in: str
    compute: str = "float32"

    def __post_init__(self) -> None:
        if self.load_in not in ("4bit", "8bit") or self.compute not in ("float32", "bfloat16"):
            raise UserError(
                f"{NOTE}: load_in must be 4bit or 8bit, and compute float32 or bfloat16, got "
                f"{self.load_in!r} and {self.compute!r}."
            )

    @classmethod
    def of(cls, load_in: str, compute: str) -> Self | None:
        """As ``model.load_in`` says; None where that is empty."""
        return cls(load_in, compute) if load_in else None

    @classmethod
    def noted_in(cls, folder: Path) -> Self | None:
        """How the base of the adapter in ``folder`` was loaded in its training."""
        if not (folder / NOTE).is_file():
            return None
        noted = read_json(folder / NOTE)
        return cls(str(noted.get("load_in")), str(noted.get("compute")))

    def note_in(self, folder: Path) -> None:
        """Keep it beside an adapter's weights, for ``load_model``."""
        write_text(folder / NOTE, json.dumps(asdict(self), indent=2) + "\n")

    def arguments(self, device: str | torch.device) -> dict[str, Any]:
        """What ``from_pretrained`` is told. Raises UserError where bitsandbytes is missing."""
        from transformers import BitsAndBytesConfig

        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                f"model.load_in={self.load_in} needs a package that is not installed: run "
                "`pip install 'heldout[quantized]'`."
            )
        if self.load_in == "8bit":
            asked = BitsAndBytesConfig(load_in_8bit=True)
        else:
            asked = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=getattr(torch, self.compute),
            )
        return {"quantization_config": asked, "device_map": {"": torch.device(device)}}

    def bytes_of(self, model: Any, dtype: torch.dtype) -> int:
        """That the weights of a model, such as one on ``meta``, take once they are loaded so."""
        whole = sum(p.numel() for p in model.parameters()) * dtype.itemsize
        saved = 0.0
        for layer in _quantizable(model):
            num = layer.weight.numel()
            if self.load_in == "8bit":
                held = num + 4.0 * max(layer.weight.shape)
            else:
                held = num / 2 + num / _BLOCK + 4 * num / _BLOCK / _SCALES
            saved += num * dtype.itemsize - held
        return math.ceil(whole - saved)

    def finish(self, model: Any, name: str) -> None:
        """Make what was loaded compute as this module says; UserError for weights of no use."""
        import bitsandbytes as bnb

        kinds: Any = bnb.nn  # typed or not, as it is installed
        for layer in model.modules():
            if isinstance(layer, kinds.Linear4bit):
                # Else evaluation packs weights anew for some CPUs, and no gradient goes through.
                layer.support_avx512bf16_for_cpu = False
                scales = layer.weight.quant_state.offset
            elif isinstance(layer, kinds.Linear8bitLt):
                # Its own evaluation also quantizes activations, by columns of the whole batch.
                layer.compute_type = getattr(torch, self.compute)
                layer.forward = MethodType(_int8_forward, layer)
                scales = layer.weight.SCB
            else:
                continue
            if not torch.isfinite(scales).all():
                raise UserError(
                    f"Model {name}: weights are NaN or infinite: its training diverged, or the "
                    "file is damaged. Take an earlier checkpoint."
                )
        for parameter in model.parameters():
            if parameter.is_floating_point():  # else the whole file stays mapped for their sake
                parameter.data = parameter.data.clone()
        setattr(model, _KEPT_WITH, self)


def quantization_of(model: Any) -> Quantization | None:
    """How the weights of a model, or of an adapter's base, were loaded; None: as they are."""
    return getattr(model, _KEPT_WITH, None)


def num_parameters(model: Any, *, trained: bool = False) -> int:
    """Numbers in all weights, or in those that are trained; of packed ones those they stand for."""
    return sum(
        math.prod(state.shape) if (state := getattr(p, "quant_state", None)) else p.numel()
        for p in model.parameters()
        if p.requires_grad or not trained
    )


def _quantizable(model: Any) -> Iterator[Any]:
    head = model.get_output_embeddings()
    for layer in model.modules():
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head:
            yield layer


def _int8_forward(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    kind = layer.compute_type
    with torch.autocast(inputs.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.to(kind)
        weight_DE, scales_D = layer.weight.data, layer.weight.SCB
        found = _Int8Product.apply(inputs.to(kind), weight_DE, scales_D)
        return (found if bias is None else found + bias).to(inputs.dtype)


class _Int8Product(torch.autograd.Function):
    """Inputs times dequantized weights, which are made again for the backward, not kept."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight_DE: torch.Tensor, scales_D: torch.Tensor
    ) -> torch.Tensor:
        ctx.weight_DE, ctx.scales_D = weight_DE, scales_D
        return F.linear(inputs, _dequantized(weight_DE, scales_D, inputs.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient @ _dequantized(ctx.weight_DE, ctx.scales_D, gradient.dtype), None, None


def _dequantized(
    weight_DE: torch.Tensor, scales_D: torch.Tensor, kind: torch.dtype
) -> torch.Tensor:
    return weight_DE.to(kind) * (scales_D / 127).to(kind)[:, None]
