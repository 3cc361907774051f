"""Dropout on a loaded model, also where it has no dropout modules.

Llama-like models hold no ``nn.Dropout``: attention dropout is a number on the attention module,
LoRA dropout of 0 is an ``nn.Identity``, and nothing at all drops hidden states. So three edits are
made and undone: existing modules and numbers are set, identities are swapped, and hooks drop the
outputs of the input embedding and of the residual branches that have no dropout of their own.

Whole attention heads are dropped where their outputs enter the output projection, each head of each
row with its own draw. What is kept is divided by ``1 - heads``, as in all dropout; DropHead divides
by the share of heads that happen to be kept, which is the same on average and fails where none is.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer, schedule_factor
from heldout.lm.layers import decoder_layers

SOURCE = "Srivastava et al. 2014, JMLR 15; heads: Zhou et al. 2020, arXiv 2004.13342"
COST = "one random number per dropped value; attention dropout rules out some fused kernels"

# B batch, T tokens, H heads, D width of all heads together

_ATTENTIONS = ("self_attn", "self_attention", "attn", "attention", "linear_attn")
_BRANCHES = (*_ATTENTIONS, "mlp", "feed_forward", "ffn", "block_sparse_moe")
_ATTENTION = re.compile(r"(^|\.)(self_attn|self_attention|attn|attention)$")
_ATTENTION_NAMES = ("attn_dropout", "attention_dropout", "attn_pdrop")
_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_PLACES = ("hidden", "attention", "embedding", "adapter", "heads")

SetShare = Callable[[float], None]

_edited: WeakSet[nn.Module] = WeakSet()  # models in which something is dropped, or soon will be


def dropped_heads(output_BTD: torch.Tensor, num_heads: int, share: float) -> torch.Tensor:
    """Attention output before its projection, with whole heads of each row set to zero."""
    shape_BTHE = (*output_BTD.shape[:2], num_heads, -1)
    kept_B1H1 = F.dropout(output_BTD.new_ones(len(output_BTD), 1, num_heads, 1), share)
    return (output_BTD.view(shape_BTHE) * kept_B1H1).view(output_BTD.shape)


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
        if self.attention and not (_attention_modules(model) or _attention_numbers(model)):
            raise UserError(
                f"Dropout(attention={self.attention}): no attention dropout was found in "
                f"{type(model).__name__}; set dropout.hidden instead."
            )
        if self.hidden and not _hidden_edits(model):
            raise UserError(
                f"Dropout(hidden={self.hidden}): no residual branches were found in "
                f"{type(model).__name__}."
            )
        if self.heads and not _projections(model):
            raise UserError(
                f"Dropout(heads={self.heads}): no output projection of attention heads was found "
                f"in {type(model).__name__}; set dropout.attention or dropout.hidden instead."
            )

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
def _turned_off(module: nn.Dropout) -> Iterator[SetShare]:
    with _number(module, "p") as set_share:
        set_share(0.0)
        yield lambda share: None


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


def _attention_edits(model: nn.Module) -> list[Any]:
    modules = [_number(module, "p") for module in _attention_modules(model)]
    return modules + [_number(owner, name) for owner, name in _attention_numbers(model)]


def _hidden_edits(model: Any) -> list[Any]:
    return [edit for layer in decoder_layers(model) for edit in _layer_edits(layer)]


def _layer_edits(layer: nn.Module) -> list[Any]:
    """Edits that drop each residual branch of a decoder layer once."""
    if _has_number(layer, "dropout"):  # OPT and its like drop every branch by it
        return [_number(layer, "dropout")]
    branches = [module for name, module in layer.named_children() if name in _BRANCHES]
    direct = [module for module in layer.children() if isinstance(module, nn.Dropout)]
    if len(direct) > 1 or not branches:  # one for each branch
        return [_number(module, "p") for module in direct]
    # A single one may serve both branches or one of them: what is done here takes its place.
    edits = [_turned_off(module) for module in direct]
    for branch in branches:
        edits += _own_edits(branch) or [_dropping_output(branch)]
    return edits


def _own_edits(branch: Any) -> list[Any]:
    """Edits of the dropout that a branch has at its end."""
    edits = [_number(m, "p") for name, m in _dropout_modules(branch) if not _is_attention(name)]
    # Where the residual is added inside, what comes out must not be dropped.
    adds_residual = "residual" in inspect.signature(branch.forward).parameters
    names = ("residual_dropout", "hidden_dropout") if adds_residual else ("residual_dropout",)
    return edits + [_number(branch, name) for name in names if _has_number(branch, name)]


def _embedding_edits(model: Any) -> list[Any]:
    existing = [_number(module, "p") for module in _embedding_modules(model)]
    return existing or [_dropping_output(model.get_input_embeddings())]


_EDITS: dict[str, Callable[[Any], list[Any]]] = {
    "attention": _attention_edits,
    "hidden": _hidden_edits,
    "embedding": _embedding_edits,
    "adapter": lambda model: [_swapped(*place) for place in _adapter_dropouts(model)],
    "heads": lambda model: [_dropping_heads(*place) for place in _projections(model)],
}


def _dropout_modules(model: nn.Module) -> Iterator[tuple[str, nn.Dropout]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." not in f".{name}.":
            yield name, module


def _attention_modules(model: nn.Module) -> list[nn.Dropout]:
    return [module for name, module in _dropout_modules(model) if _is_attention(name)]


def _is_attention(name: str) -> bool:
    return name.rpartition(".")[2] in _ATTENTION_NAMES


def _embedding_modules(model: nn.Module) -> list[nn.Dropout]:
    return [m for name, m in _dropout_modules(model) if re.search(r"(^|\.)(drop|emb\w+)$", name)]


def _attention_numbers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [
        (module, "attention_dropout")
        for module in model.modules()
        if _has_number(module, "attention_dropout")
    ]


def _has_number(module: nn.Module, name: str) -> bool:
    value = getattr(module, name, None)
    return isinstance(value, float | int) and not isinstance(value, bool)


def _projections(model: Any) -> list[tuple[nn.Module, int]]:
    """Output projections of attention, each with its number of heads."""
    num_heads = getattr(model.config.get_text_config(), "num_attention_heads", 0)
    found = []
    for name, module in model.named_modules():
        if num_heads and _ATTENTION.search(name):
            projections = [m for n, m in module.named_children() if n in _PROJECTIONS]
            found += [(projection, num_heads) for projection in projections]
    return found


def _adapter_dropouts(model: nn.Module) -> list[tuple[nn.ModuleDict, str]]:
    found = []
    for module in model.modules():
        holder = getattr(module, "lora_dropout", None)
        if isinstance(holder, nn.ModuleDict):
            found += [(holder, name) for name in holder]
    return found
