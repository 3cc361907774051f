"""Optimizers that keep two forms of the weights: the point of the gradient, and what is measured.

Schedule-free ones put either into the model, by ``optimizer.train()`` and ``optimizer.eval()``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from heldout.core.errors import UserError
from heldout.core.regularizer import Regularizer, overrides_hook


def keeps_two_forms(optimizer: Any) -> bool:
    """Whether the weights in the model, between steps, need not be those to be measured."""
    kind = type(_inner(optimizer))
    return all(callable(getattr(kind, name, None)) for name in ("train", "eval"))


def holds_gradient_point(optimizer: Any) -> bool:
    """Whether the model holds the point of the gradient now, which is not to be measured."""
    inner = _inner(optimizer)
    return keeps_two_forms(inner) and bool(inner.param_groups[0].get("train_mode", False))


@contextmanager
def measured_form(optimizer: Any) -> Iterator[None]:
    """Within this context the model holds what is to be measured; put back bit for bit.

    Costs a copy of the trained weights, where there is anything to change.
    """
    if optimizer is None or not holds_gradient_point(optimizer):
        yield
        return
    inner = _inner(optimizer)
    weights = [p for group in inner.param_groups for p in group["params"]]
    kept = [p.detach().clone() for p in weights]
    inner.eval()
    try:
        yield
    finally:
        inner.train()
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)


def refuse_two_forms(name: str, regularizers: Sequence[Regularizer]) -> None:
    """UserError for what changes or averages weights that are not the measured ones.

    ``name`` is the optimizer's, or the setting that asks for it.
    """
    for regularizer in regularizers:
        if any(overrides_hook(regularizer, hook) for hook in ("after_step", "evaluation_weights")):
            raise UserError(
                f"{type(regularizer).__name__} works on the weights after a step, of which {name} "
                "keeps two forms: use AdamW, or leave it out."
            )


def _inner(optimizer: Any) -> Any:
    """Inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
