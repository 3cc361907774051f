"""Decoder layers of a causal model, and how far up each parameter sits."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from heldout.core.errors import UserError

_OTHER = re.compile(r"vision|image|visual|audio|speech")  # towers beside the text
_BELOW = re.compile(r"embed|(^|\.)w[tp]e\.")


def decoder_layers(model: Any) -> nn.ModuleList:
    """The stack of decoder layers, the lowest first. Raises UserError if there is none."""
    return _stack(model)[1]


def depths(model: Any) -> dict[str, int]:
    """For each parameter: 0 for embeddings, then 1 for the lowest of L layers, L + 1 above them.

    Above the layers are the final norm and the output layer. Tied to the input embedding, the
    output layer is that one parameter, and counts as an embedding.
    """
    place, layers = _stack(model)
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    of_head = set() if head is None or tied else {id(p) for p in head.parameters()}
    found = {}
    for name, parameter in model.named_parameters():
        if name.startswith(f"{place}."):
            found[name] = 1 + int(name.removeprefix(f"{place}.").split(".")[0])
        elif _BELOW.search(name) and id(parameter) not in of_head:
            found[name] = 0
        else:
            found[name] = len(layers) + 1
    return found


def trained_depths(model: Any) -> list[int]:
    """Distinct depths of trained parameters, the lowest first."""
    found = depths(model)
    return sorted({found[name] for name, p in model.named_parameters() if p.requires_grad})


def _stack(model: Any) -> tuple[str, nn.ModuleList]:
    config = model.config.get_text_config()
    numbers = {getattr(config, name, 0) for name in ("num_hidden_layers", "num_layers")} - {0}
    for name, module in model.named_modules():
        is_stack = isinstance(module, nn.ModuleList) and len(module) in numbers
        if is_stack and not _OTHER.search(name):
            return name, module
    raise UserError(f"No stack of decoder layers was found in {type(model).__name__}.")


@contextmanager
def forward_within(layer: Any, around: Callable[..., Any]) -> Iterator[None]:
    """Within this context a layer in training runs ``around(forward, *args, **kwargs)``.

    Also where gradient checkpointing computes it again, which calls no patched forward.
    """
    forward = layer.forward

    def replaced(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return forward(*args, **kwargs)
        if not (getattr(layer, "gradient_checkpointing", False) and _checkpoints_inside(layer)):
            return around(forward, *args, **kwargs)
        checkpoint = layer._gradient_checkpointing_func
        layer._gradient_checkpointing_func = lambda function, *inputs: checkpoint(
            partial(around, function.func, *function.args[:1], **function.keywords), *inputs
        )
        try:
            return forward(*args, **kwargs)
        finally:
            layer._gradient_checkpointing_func = checkpoint

    with forward_replaced(layer, replaced):
        yield


@contextmanager
def forward_replaced(layer: Any, replaced: Callable[..., Any]) -> Iterator[None]:
    """Within this context the layer runs ``replaced(*args, **kwargs)``; hooks stay."""
    own = layer.__dict__.get("forward")
    layer.forward = replaced
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own


def _checkpoints_inside(layer: Any) -> bool:
    """Whether its class's forward is what transformers (from 5.20 or so) has put around it."""
    wrapped = hasattr(type(layer).forward, "__wrapped__")
    return wrapped and hasattr(layer, "_gradient_checkpointing_func")
