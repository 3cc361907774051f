"""Dropout on a loaded model, also where it has no dropout modules.

Llama-like models hold no ``nn.Dropout``: attention dropout is a number on the attention module,
LoRA dropout of 0 is an ``nn.Identity``, and nothing at all drops hidden states. Places are found by
running the layers, not by names: what branches add to the residual stream, and what is multiplied
by values. Numbers and modules are set where they reach that, identities are swapped, and elsewhere
the layer's own additions and products are followed. Edits are undone; what has no such place is
refused.

Whole attention heads are dropped where their outputs enter the output projection, each head of each
row with its own draw. What is kept is divided by ``1 - heads``, as in all dropout; DropHead divides
by the share of heads that happen to be kept, which is the same on average and fails where none is.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.nn.functional as F
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer, schedule_factor
from heldout.lm.attention_weights import AttentionWeights, watched
from heldout.lm.dropout_places import (
    embedding_dropout,
    head_projections,
    kernels_reached,
    layers_of,
    layers_with_branches,
)
from heldout.lm.head import unwrapped
from heldout.lm.residual_stream import ResidualStream, streamed
from heldout.lm.row_noise import row_factors

SOURCE = "Srivastava et al. 2014, JMLR 15; heads: Zhou et al. 2020, arXiv 2004.13342"
COST = "one random number per dropped value; attention dropout rules out some fused kernels"

# B batch, T tokens, H heads, D width of all heads together

_ATTENTION_NAMES = ("attn_dropout", "attention_dropout", "attn_pdrop")
_PLACES = ("hidden", "attention", "embedding", "adapter", "heads")
_MARK = 0.375  # a share that no model has of its own

SetShare = Callable[[float], None]

_edited: WeakSet[nn.Module] = WeakSet()  # models in which something is dropped, or soon will be


def dropped_heads(output_BTD: torch.Tensor, num_heads: int, share: float) -> torch.Tensor:
    """Attention output before its projection, with whole heads of each row set to zero."""
    factors_BTH = row_factors(output_BTD, num_heads, share)
    shape_BTHE = (*output_BTD.shape[:2], num_heads, -1)
    return (output_BTD.view(shape_BTHE) * factors_BTH[..., None]).view(output_BTD.shape)


@dataclass(frozen=True)
class Dropout(Regularizer):
    """Shares of values that are dropped in training; 0 leaves a place as it is.

    ``hidden``: outputs of the attention and feed-forward branches. ``attention``: attention
    weights. ``embedding``: the input embedding. ``adapter``: inputs of LoRA layers. ``heads``:
    whole attention heads. ``schedule`` scales all five.
    """

    STRENGTH: ClassVar[str] = "hidden"  # and with it the others

    hidden: float = 0.0
    attention: float = 0.0
    embedding: float = 0.0
    adapter: float = 0.0
    heads: float = 0.0

    # (place, what sets its share): the edits of the model that is attached.
    _edits: list[tuple[str, SetShare]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _PLACES:
            self.require(name, 0 <= getattr(self, name) < 1, "at least 0 and under 1")

    @staticmethod
    def is_at_work(model: nn.Module) -> bool:
        """Whether one is attached to the model, be it at a share that is still 0."""
        return any(module in _edited for module in model.modules())

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if recipe is not None and not any(getattr(self, name) for name in _PLACES):
            raise UserError(
                "regularizers.dropout drops nothing: set dropout.hidden, attention, embedding, "
                "adapter or heads, or take it out with regularizers.dropout=false."
            )
        if self.adapter and not _adapter_dropouts(model):
            raise UserError(
                f"Dropout(adapter={self.adapter}): the model has no LoRA layers; set "
                "dropout.hidden instead, or train with model.method = lora."
            )
        for place in _FINDERS:
            if getattr(self, place):
                _planned(model, place)

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for place in _PLACES:
                if getattr(self, place):
                    for edit in _EDITS[place](model):
                        self._edits.append((place, stack.enter_context(edit)))
            stack.callback(self._edits.clear)
            if self._edits:
                _edited.add(model)
                stack.callback(_edited.discard, model)
            self._set_shares()
            yield

    def before_step(self, model: Any, step: int) -> None:
        if self.schedule != "constant":
            self._set_shares()

    def _set_shares(self) -> None:
        factor = schedule_factor(self.schedule, self._progress)
        for place, set_share in self._edits:
            set_share(factor * getattr(self, place))


@contextmanager
def _number(module: Any, name: str) -> Iterator[SetShare]:
    """Sets a number of a module, or of a dropout module."""
    earlier = getattr(module, name)
    try:
        yield partial(setattr, module, name)
    finally:
        setattr(module, name, earlier)


@contextmanager
def _swapped(holder: nn.ModuleDict, name: str) -> Iterator[SetShare]:
    """Puts a dropout module where there may be an identity."""
    earlier = holder[name]
    dropout = nn.Dropout(0.0).train(earlier.training)
    holder[name] = dropout
    try:
        yield partial(setattr, dropout, "p")
    finally:
        holder[name] = earlier.train(dropout.training)


@contextmanager
def _dropping_output(module: nn.Module) -> Iterator[SetShare]:
    share = {"p": 0.0}

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        # Attention returns a tuple whose first entry is the hidden states.
        if isinstance(output, tuple):
            return (F.dropout(output[0], share["p"], module.training), *output[1:])
        return F.dropout(output, share["p"], module.training)

    handle = module.register_forward_hook(drop)
    try:
        yield partial(share.__setitem__, "p")
    finally:
        handle.remove()


@contextmanager
def _dropping_heads(projection: nn.Module, num_heads: int) -> Iterator[SetShare]:
    share = {"p": 0.0}

    def drop(module: nn.Module, inputs: tuple) -> tuple | None:
        if not (module.training and share["p"]):
            return None
        return (dropped_heads(inputs[0], num_heads, share["p"]), *inputs[1:])

    handle = projection.register_forward_pre_hook(drop)
    try:
        yield partial(share.__setitem__, "p")
    finally:
        handle.remove()


@contextmanager
def _dropping_branches(layer: nn.Module) -> Iterator[SetShare]:
    stream = ResidualStream(lambda branch: branch)
    with streamed(layer, stream):
        yield lambda share: setattr(stream, "edit", lambda branch: F.dropout(branch, share))


@contextmanager
def _dropping_weights(layer: nn.Module) -> Iterator[SetShare]:
    weights = AttentionWeights(0.0)
    with watched(layer, weights):
        yield partial(setattr, weights, "share")


# What is found of a model by trials, once: before it is wrapped or sharded.
_plans: WeakKeyDictionary[nn.Module, dict[str, list[Any]]] = WeakKeyDictionary()


def _planned(model: Any, place: str) -> list[Any]:
    """What is to be edited at a place; UserError with the reason where it cannot be."""
    inner = unwrapped(model)
    plans = _plans.setdefault(inner, {})
    if place not in plans:
        plans[place] = _FINDERS[place](inner)
    return plans[place]


def _find_weights(model: Any) -> list[Callable[[], Any]]:
    """Makers of edits: numbers and modules that reach the kernel, else the kernel itself."""
    layers = layers_of(model)
    own = [_own_attention(layer) for layer in layers]
    with ExitStack() as stack:
        for edit in chain(*own):
            stack.enter_context(edit())(_MARK)
        reached = kernels_reached(model, layers, _MARK)
    makers: list[Callable[[], Any]] = []
    for layer, edits, is_reached in zip(layers, own, reached, strict=True):
        makers += edits if is_reached else [partial(_dropping_weights, layer)]
    return makers


def _own_attention(layer: Any) -> list[Callable[[], Any]]:
    modules = [m for name, m in _dropout_modules(layer) if _is_attention(name)]
    numbers = [m for m in layer.modules() if _has_number(m, "attention_dropout")]
    return [
        *(partial(_number, module, "p") for module in modules),
        *(partial(_number, owner, "attention_dropout") for owner in numbers),
    ]


_FINDERS: dict[str, Callable[[Any], list[Any]]] = {
    "hidden": layers_with_branches,
    "attention": _find_weights,
    "heads": head_projections,
    "embedding": embedding_dropout,
}


def _embedding_edits(model: Any) -> list[Any]:
    own = [_number(module, "p") for module in _planned(model, "embedding")]
    return own or [_dropping_output(unwrapped(model).get_input_embeddings())]


_EDITS: dict[str, Callable[[Any], list[Any]]] = {
    "attention": lambda model: [make() for make in _planned(model, "attention")],
    "hidden": lambda model: [_dropping_branches(layer) for layer in _planned(model, "hidden")],
    "embedding": _embedding_edits,
    "adapter": lambda model: [_swapped(*place) for place in _adapter_dropouts(model)],
    "heads": lambda model: [_dropping_heads(*place) for place in _planned(model, "heads")],
}


def _dropout_modules(model: nn.Module) -> Iterator[tuple[str, nn.Dropout]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." not in f".{name}.":
            yield name, module


def _is_attention(name: str) -> bool:
    return name.rpartition(".")[2] in _ATTENTION_NAMES


def _has_number(module: nn.Module, name: str) -> bool:
    value = getattr(module, name, None)
    return isinstance(value, float | int) and not isinstance(value, bool)


def _adapter_dropouts(model: nn.Module) -> list[tuple[nn.ModuleDict, str]]:
    found = []
    for module in model.modules():
        holder = getattr(module, "lora_dropout", None)
        if isinstance(holder, nn.ModuleDict):
            found += [(holder, name) for name in holder]
    return found
