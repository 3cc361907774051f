"""Regularizers that cannot work: beside each other, on this model, or without held-out losses."""

from collections.abc import Sequence

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.regularizer import Regularizer, overrides_hook


def refuse_unmeasured(regularizer: Regularizer, evaluates: bool) -> None:
    """What works on held-out losses needs someone who measures them."""
    for hook in ("decide", "finish"):
        if overrides_hook(regularizer, hook) and not evaluates:
            raise UserError(
                f"{type(regularizer).__name__} works on held-out losses, which only heldout.fit "
                "measures: use that, or leave it out here."
            )


def refuse_half_precision(model: nn.Module, regularizers: Sequence[Regularizer]) -> None:
    """What changes weights a little needs weights that hold little changes."""
    users = [type(r).__name__ for r in regularizers if r.NEEDS_FLOAT32]
    half = {p.dtype for p in model.parameters() if p.requires_grad} & {
        torch.bfloat16,
        torch.float16,
    }
    if users and half:
        raise UserError(
            f"{users[0]} changes weights by less than {str(half.pop()).removeprefix('torch.')} "
            "holds: load the model with dtype=torch.float32, and train under autocast, as "
            "TrainingArguments(bf16=True) does."
        )


def check_together(regularizers: Sequence[Regularizer]) -> None:
    """Raise UserError for twins and for pairs that contradict each other."""
    names = [type(regularizer).__name__ for regularizer in regularizers]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is given twice.")
    for regularizer, name in zip(regularizers, names, strict=True):
        for other, reason in regularizer.CONFLICTS.items():
            if other in names:
                raise UserError(f"{name} and {other} do not go together: {reason}")
