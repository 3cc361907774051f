"""Attention weights on their way from the softmax to the values, found while a layer runs.

No names are trusted: a fused kernel, or a softmax over keys and what multiplies it. Kernels that
are no functions of torch (flash attention) are not seen.
"""

# B batch, H heads, T tokens, S keys

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from heldout.lm.layers import forward_within
from heldout.lm.row_noise import in_force

_T = torch.Tensor
_SOFTMAX = {F.softmax, torch.softmax, _T.softmax}
_DROPS = {F.dropout, torch.dropout, torch.dropout_}
_KEEPS = {
    _T.to, _T.float, _T.type, _T.type_as, _T.contiguous, _T.clone, _T.view, _T.reshape,
    _T.transpose, _T.__getitem__, _T.mul, _T.__mul__, _T.permute, _T.flatten, _T.unsqueeze,
}  # fmt: skip
_PRODUCTS = {
    torch.matmul, _T.matmul, _T.__matmul__, torch.bmm, _T.bmm, torch.einsum, torch.baddbmm,
}  # fmt: skip
_FUSED = F.scaled_dot_product_attention


@dataclass(frozen=True)
class Kernel:
    """One use of attention weights: its heads, and the share of weights that was dropped."""

    num_heads: int
    share: float


class AttentionWeights(TorchFunctionMode):
    """Within it every use of attention weights is noted, and with a share dropped at that share."""

    def __init__(self, share: float | None = None):
        super().__init__()
        self.share = share
        self.kernels: list[Kernel] = []
        self._weights: dict[int, tuple[_T, int, float]] = {}  # kept, so that no id is used again
        self._num_rows = 1

    def begin(self, *inputs: Any) -> None:
        """Of a call with these arguments."""
        self._weights.clear()
        self._num_rows = next(len(each) for each in inputs if isinstance(each, _T))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _FUSED:
            return self._fused(args, kwargs)
        if func in _DROPS and (known := self._known(args[0])):
            return self._dropped(func, args, kwargs, known)
        if func in _PRODUCTS and (place := self._place(args)) is not None:
            args = self._used(args, place)
        result = in_force(func)(*args, **kwargs)
        if func in _SOFTMAX and self._is_attention(args, kwargs, result):
            heads = result.shape[1] if result.ndim > 3 else len(result) // self._num_rows
            self._weights[id(result)] = (result, heads, 0.0)
        elif func in _KEEPS and (known := self._known(args[0])) and isinstance(result, _T):
            self._weights[id(result)] = (result, *known)
        return result

    def _known(self, tensor: Any) -> tuple[int, float] | None:
        held = self._weights.get(id(tensor))
        return held[1:] if held and held[0] is tensor else None

    def _is_attention(self, args: Any, kwargs: Any, result: _T) -> bool:
        """Not the router of a mixture of experts, whose shape is (tokens, E) or (B, T, E)."""
        return result.ndim > 3 or (result.ndim == 3 and len(result) > self._num_rows)

    def _place(self, args: Any) -> int | None:
        """Which argument of a product is attention weights."""
        return next((at for at, each in enumerate(args) if self._known(each)), None)

    def _used(self, args: Any, place: int) -> Any:
        known = self._known(args[place])
        assert known is not None
        heads, share = known
        if self.share is not None and not share:
            share = self.share
            dropped = F.dropout(args[place], share)
            args = (*args[:place], dropped, *args[place + 1 :])
        self.kernels.append(Kernel(heads, share))
        return args

    def _dropped(self, func: Any, args: Any, kwargs: Any, known: tuple[int, float]) -> Any:
        share = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        if self.share is not None:
            return args[0]  # done where the weights are used
        result = in_force(func)(*args, **kwargs)
        self._weights[id(result)] = (result, known[0], float(share) if training else 0.0)
        return result

    def _fused(self, args: Any, kwargs: Any) -> Any:
        if self.share is not None:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            kwargs = {**dict(zip(names, args, strict=False)), **kwargs, "dropout_p": self.share}
            args = ()
        share = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
        query = args[0] if args else kwargs["query"]
        self.kernels.append(Kernel(query.shape[1], float(share)))
        return in_force(_FUSED)(*args, **kwargs)


@contextmanager
def watched(layer: nn.Module, weights: AttentionWeights) -> Iterator[None]:
    """Within this context ``weights`` follows every training call of the layer."""

    def around(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        weights.begin(*args, *kwargs.values())
        with weights:
            return forward(*args, **kwargs)

    with forward_within(layer, around):
        yield
