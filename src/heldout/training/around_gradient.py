"""The gradient of a window of micro-batches, with regularizers around it, one inside another."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from heldout.core.regularizer import Gradient, Regularizer
from heldout.lm.undisturbed import RandomState, random_state, replayed

# (index of the micro-batch, factor of its loss, offset of its embeddings) -> its loss, detached;
# adds the gradient
RunMicroBatch = Callable[[int, float, torch.Tensor | None], torch.Tensor]


class WindowGradient:
    """The plain gradient of a window: each micro-batch forward and backward, in order."""

    def __init__(
        self, window: Sequence[Mapping[str, Any]], run: RunMicroBatch, device: torch.device
    ):
        self.window = window
        self.run = run
        self.device = device
        self.states: list[RandomState] = []

    def __call__(
        self,
        *,
        scales: Sequence[float] | float = 1.0,
        embedding_offsets: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        for index in range(len(self.window)):
            scale = scales[index] if isinstance(scales, Sequence) else scales
            offset = None if embedding_offsets is None else embedding_offsets[index]
            again = len(self.states) > index
            if not again:
                self.states.append(random_state(self.device))
            with replayed(self.states[index]) if again else nullcontext():
                total += self.run(index, scale, offset)
        return total


class AroundGradient:
    """The gradient as one regularizer computes it from the next inner one."""

    def __init__(self, regularizer: Regularizer, model: nn.Module, inner: Gradient, step: int):
        self.regularizer = regularizer
        self.model = model
        self.inner = inner
        self.step = step
        self.window = inner.window

    def __call__(
        self,
        *,
        scales: Sequence[float] | float = 1.0,
        embedding_offsets: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        inner = _BoundGradient(self.inner, scales, embedding_offsets)
        return self.regularizer.around_gradient(self.model, inner, self.step)


class _BoundGradient:
    """A gradient with factors and offsets that an outer regularizer has asked for."""

    def __init__(
        self,
        inner: Gradient,
        scales: Sequence[float] | float,
        embedding_offsets: Sequence[torch.Tensor] | None,
    ):
        self.inner = inner
        self.scales = scales
        self.embedding_offsets = embedding_offsets
        self.window = inner.window

    def __call__(
        self,
        *,
        scales: Sequence[float] | float = 1.0,
        embedding_offsets: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        num = len(self.window)
        products = [a * b for a, b in zip(_each(self.scales, num), _each(scales, num), strict=True)]
        given = [o for o in (self.embedding_offsets, embedding_offsets) if o is not None]
        sums = [sum(parts) for parts in zip(*given, strict=True)] if given else None
        return self.inner(scales=products, embedding_offsets=sums)


def _each(scales: Sequence[float] | float, num: int) -> Sequence[float]:
    return scales if isinstance(scales, Sequence) else [scales] * num
