"""What the branches of a decoder layer add to its residual stream, found while the layer runs.

No names are trusted. Within a layer's forward every addition of two tensors is seen, of which one
is the stream: the layer's input, an earlier such sum, or a norm of it (post-norm layers). The other
is what a branch adds, or the sum, made in the layer itself, of
what parallel branches do. Where the layer's output is such a
sum in the end, all that was added to its input has been seen.
"""

# B batch, T tokens, D width

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers.utils import ModelOutput

from heldout.lm.layers import forward_within
from heldout.lm.row_noise import in_force

Edit = Callable[[torch.Tensor], torch.Tensor]

_T = torch.Tensor
_ADDS = {torch.add, _T.add, _T.add_, _T.__add__, _T.__radd__, _T.__iadd__}
_IN_PLACE = {_T.add_, _T.__iadd__}
_DROPS = {F.dropout, torch.dropout, torch.dropout_}
_KEEPS = {  # the same numbers, or a multiple of them
    _T.to, _T.float, _T.type, _T.type_as, _T.contiguous, _T.clone, _T.view, _T.reshape,
    _T.squeeze, _T.unsqueeze, torch.squeeze, torch.unsqueeze, _T.transpose,
}  # fmt: skip
_SCALES = {torch.mul, _T.mul, _T.__mul__, _T.__rmul__, torch.div, _T.div, _T.__truediv__}


class ResidualStream(TorchFunctionMode):
    """The stream of one call of a layer; ``edit`` changes what each branch adds to it.

    Dropout of the layer's own, of what is added, is left out.
    """

    def __init__(self, edit: Edit | None = None):
        super().__init__()
        self.edit = edit
        self.num_branches = 0  # seen so far
        self.depth = 0  # of modules within the layer that run now
        self.has_graph = False  # the last call was differentiated as it ran
        self.is_whole = False  # the last call's output is its input and what branches added
        self._marked: dict[int, _T] = {}  # kept, so that no id is used again
        self._parts: dict[int, tuple[_T, _T, _T]] = {}  # a sum, and the two that it is of
        self._undropped: dict[int, tuple[_T, _T]] = {}  # what dropout returned, and what it got

    def begin(self, *inputs: Any) -> None:
        """Of a call with these arguments: the first tensor, and those of its shape."""
        tensors = [each for each in inputs if isinstance(each, _T)]
        shape = tensors[0].shape
        self.depth = 0
        self.has_graph = torch.is_grad_enabled()
        for tensor in tensors:
            if tensor.shape == shape:
                self.mark(tensor)

    def end(self, output: Any) -> None:
        """Of the call, with what it returns."""
        first = output[0] if isinstance(output, tuple | list | ModelOutput) else output
        self.is_whole = self.is_marked(first)
        self._marked.clear()
        self._parts.clear()
        self._undropped.clear()

    def mark(self, tensor: _T) -> None:
        self._marked[id(tensor)] = tensor

    def is_marked(self, tensor: Any) -> bool:
        return self._marked.get(id(tensor)) is tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ADDS and len(args) > 1:
            return self._added(func, args, kwargs)
        result = in_force(func)(*args, **kwargs)
        if func in _DROPS and result is not args[0]:
            self._undropped[id(result)] = (result, args[0])
        elif func in _KEEPS and self.is_marked(args[0]):
            self.mark(result)
        elif func is _T.__getitem__ and isinstance(args[1], int) and self.is_marked(args[0]):
            self.mark(result)  # one of several streams
        elif func in _SCALES and self._is_scaled(args):
            self.mark(result)
        return result

    def _is_scaled(self, factors: Any) -> bool:
        marked = [self.is_marked(each) for each in factors]
        others = [each for each, known in zip(factors, marked, strict=True) if not known]
        return any(marked) and all(_is_small(each) for each in others)

    def _added(self, func: Any, args: Any, kwargs: Any) -> Any:
        first, second, *rest = args
        marked = self.is_marked(first), self.is_marked(second)
        if not (isinstance(first, _T) and isinstance(second, _T) and first.shape == second.shape):
            return func(*args, **kwargs)
        # Several streams, (S, B, T, D), that are mixed before a branch adds to one of them.
        is_mix = first.ndim == 4 and func in _IN_PLACE and not marked[0]
        if any(marked) and not all(marked) and not is_mix:
            branch = self._edited(second if marked[0] else first)
            first, second = (first, branch) if marked[0] else (branch, second)
        is_sum = self.depth == 0 and not any(marked) and not rest and not kwargs
        part = first.clone() if is_sum and func in _IN_PLACE else first
        result = func(first, second, *rest, **kwargs)
        if any(marked):
            self.mark(result)
        elif is_sum:
            self._parts[id(result)] = (result, part, second)
        return result

    def _edited(self, branch: _T) -> _T:
        """What a branch adds, or each of several branches whose sum this is."""
        dropped = self._undropped.get(id(branch))
        if dropped is not None and dropped[0] is branch:
            return self._edited(dropped[1])
        held = self._parts.get(id(branch))
        if held is not None and held[0] is branch:
            return self._edited(held[1]) + self._edited(held[2])
        self.num_branches += 1
        return branch if self.edit is None else self.edit(branch)


def _is_small(value: Any) -> bool:
    """A number, or one for each channel."""
    return not isinstance(value, torch.Tensor) or value.ndim <= 1 or value.numel() == 1


@contextmanager
def streamed(layer: nn.Module, stream: ResidualStream) -> Iterator[None]:
    """Within this context ``stream`` follows every training call of the layer."""
    at_work = [False]

    def around(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = None
        stream.begin(kwargs.get("hidden_states"), *args, *kwargs.values())
        at_work[0] = True
        try:
            with stream:
                output = forward(*args, **kwargs)
        finally:
            at_work[0] = False
            stream.end(output)
        return output

    def follow(module: nn.Module, inputs: Any, output: Any) -> None:
        if at_work[0] and inputs and stream.is_marked(inputs[0]) and isinstance(output, _T):
            stream.mark(output)

    def enter(module: nn.Module, inputs: Any) -> None:
        stream.depth += 1

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        stream.depth -= 1

    norms = [m for m in layer.modules() if "norm" in type(m).__name__.lower()]
    handles = [norm.register_forward_hook(follow) for norm in norms]
    for part in layer.children():
        handles.append(part.register_forward_pre_hook(enter))
        handles.append(part.register_forward_hook(leave))
    try:
        with forward_within(layer, around):
            yield
    finally:
        for handle in handles:
            handle.remove()
