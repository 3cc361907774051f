"""Dropout on a loaded model, also where it has no dropout modules.

Llama-like models hold no ``nn.Dropout``: attention dropout is a number on the attention module,
LoRA dropout of 0 is an ``nn.Identity``, and nothing at all drops hidden states. So three edits are
made and undone: existing modules and numbers are set, identities are swapped, and hooks drop the
outputs of the residual branches and of the input embedding.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer

SOURCE = "Srivastava et al. 2014, JMLR 15"
COST = "one random number per dropped value; attention dropout rules out some fused kernels"

_BRANCH = re.compile(r"(^|\.)(self_attn|self_attention|attn|attention|mlp|feed_forward|ffn)$")
_ATTENTION_NAMES = ("attn_dropout", "attention_dropout", "attn_pdrop")


@dataclass(frozen=True)
class Dropout(Regularizer):
    """Shares of values that are dropped in training; 0 leaves a place as it is.

    ``hidden``: outputs of the attention and feed-forward branches. ``attention``: attention
    weights. ``embedding``: the input embedding. ``adapter``: inputs of LoRA layers.
    """

    hidden: float = 0.0
    attention: float = 0.0
    embedding: float = 0.0
    adapter: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "attention", "embedding", "adapter"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UserError(f"Dropout({name}=...) must be at least 0 and under 1, got {value}.")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if recipe is not None and self == Dropout():
            raise UserError(
                "regularizers.dropout drops nothing: set dropout.hidden, attention, embedding or "
                "adapter, or take it out with regularizers.dropout=false."
            )
        if self.adapter and not _adapter_dropouts(model):
            raise UserError(
                f"Dropout(adapter={self.adapter}): the model has no LoRA layers; set "
                "dropout.hidden instead, or train with model.method = lora."
            )
        if self.attention and not (_attention_modules(model) or _attention_numbers(model)):
            raise UserError(
                f"Dropout(attention={self.attention}): no attention dropout was found in "
                f"{type(model).__name__}; set dropout.hidden instead."
            )
        if self.hidden and not (_hidden_modules(model) or _branches(model)):
            raise UserError(
                f"Dropout(hidden={self.hidden}): no residual branches were found in "
                f"{type(model).__name__}."
            )

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        with ExitStack() as stack:
            if self.attention:
                for dropout in _attention_modules(model):
                    stack.enter_context(_changed(dropout, "p", self.attention))
                for owner, name in _attention_numbers(model):
                    stack.enter_context(_changed(owner, name, self.attention))
            if self.hidden:
                existing = _hidden_modules(model)
                for module in existing:
                    stack.enter_context(_changed(module, "p", self.hidden))
                if not existing:
                    for branch in _branches(model):
                        stack.enter_context(_dropping_output(branch, self.hidden))
            if self.embedding:
                existing = _embedding_modules(model)
                for module in existing:
                    stack.enter_context(_changed(module, "p", self.embedding))
                if not existing:
                    embedding = model.get_input_embeddings()
                    stack.enter_context(_dropping_output(embedding, self.embedding))
            if self.adapter:
                for holder, name in _adapter_dropouts(model):
                    stack.enter_context(_swapped(holder, name, nn.Dropout(self.adapter)))
            yield


@contextmanager
def _changed(module: Any, name: str, value: float) -> Iterator[None]:
    earlier = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, earlier)


@contextmanager
def _swapped(holder: nn.ModuleDict, name: str, module: nn.Module) -> Iterator[None]:
    earlier = holder[name]
    holder[name] = module.train(earlier.training)
    try:
        yield
    finally:
        holder[name] = earlier.train(module.training)


@contextmanager
def _dropping_output(module: nn.Module, share: float) -> Iterator[None]:
    handle = module.register_forward_hook(partial(_drop_output, share))
    try:
        yield
    finally:
        handle.remove()


def _drop_output(share: float, module: nn.Module, inputs: Any, output: Any) -> Any:
    # Attention returns a tuple whose first entry is the hidden states.
    if isinstance(output, tuple):
        return (F.dropout(output[0], share, module.training), *output[1:])
    return F.dropout(output, share, module.training)


def _dropout_modules(model: nn.Module) -> Iterator[tuple[str, nn.Dropout]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." not in f".{name}.":
            yield name, module


def _attention_modules(model: nn.Module) -> list[nn.Dropout]:
    return [m for name, m in _dropout_modules(model) if name.endswith(_ATTENTION_NAMES)]


def _embedding_modules(model: nn.Module) -> list[nn.Dropout]:
    return [m for name, m in _dropout_modules(model) if re.search(r"(^|\.)(drop|embd_\w+)$", name)]


def _hidden_modules(model: nn.Module) -> list[nn.Dropout]:
    others = {id(m) for m in (*_attention_modules(model), *_embedding_modules(model))}
    return [m for _, m in _dropout_modules(model) if id(m) not in others]


def _attention_numbers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [
        (module, "attention_dropout")
        for module in model.modules()
        if isinstance(getattr(module, "attention_dropout", None), float | int)
        and not isinstance(getattr(module, "attention_dropout", None), bool)
    ]


def _branches(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if _BRANCH.search(name)]


def _adapter_dropouts(model: nn.Module) -> list[tuple[nn.ModuleDict, str]]:
    found = []
    for module in model.modules():
        holder = getattr(module, "lora_dropout", None)
        if isinstance(holder, nn.ModuleDict):
            found += [(holder, name) for name in holder]
    return found
