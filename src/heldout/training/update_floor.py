"""The learning rate below which Adam's steps are lost in rounding.

Adam moves a weight by about the learning rate. A weight w of a type with machine epsilon e lies
between neighbors e * w apart, or half of that, and a step of less than half the distance is rounded
away: in bfloat16 a step of 1e-6 on a weight of 0.02 changes nothing, and the loss never moves.
"""

from typing import Any

import torch

from heldout.core.errors import UserError
from heldout.lm.weights import trained_parameters

SAMPLED = 100_000  # numbers of each tensor that its typical size is read from


def update_floor(model: Any) -> float:
    """Learning rate under which a typical trained weight stays as it is: epsilon / 4 of its size.

    The typical size is the median absolute value, zeros left out, of each trained tensor; the floor
    is the median over tensors, weighted by their numbers. Between neighbors there is half an
    epsilon of the weight at the least, so a step under a quarter is surely lost. 0 where nothing
    but zeros is trained.
    """
    floors, counts = [], []
    for parameter in trained_parameters(model).values():
        stride = max(1, parameter.numel() // SAMPLED)
        sizes = parameter.detach().flatten()[::stride].abs().float()
        sizes = sizes[sizes > 0]
        if len(sizes):
            floors.append(torch.finfo(parameter.dtype).eps / 4 * float(sizes.median()))
            counts.append(parameter.numel())
    if not floors:
        return 0.0
    order = sorted(range(len(floors)), key=floors.__getitem__)
    reached = 0
    for index in order:
        reached += counts[index]
        if reached * 2 >= sum(counts):
            return floors[index]
    raise AssertionError


def check_update_floor(model: Any, learning_rate: float) -> None:
    """Raise UserError, before the first step, for a rate whose steps would be rounded away."""
    floor = update_floor(model)
    if learning_rate < floor:
        dtype = str(next(iter(trained_parameters(model).values())).dtype).removeprefix("torch.")
        raise UserError(
            f"train.learning_rate must be at least {floor:.1g} for weights in {dtype}, whose "
            f"rounding swallows smaller steps, got {learning_rate:g}: nothing would be learned. "
            "Raise it, or keep the weights in float32."
        )
