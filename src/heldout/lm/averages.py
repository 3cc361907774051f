"""Running averages of the trained weights, in float32 whatever the type of the weights."""

from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from heldout.lm.weights import placed_like, trained_parameters, weights_replaced


def float_copies(model: nn.Module) -> dict[str, torch.Tensor]:
    """Detached float32 clones of the trained parameters, by name."""
    return {
        name: parameter.detach().to(torch.float32, copy=True)
        for name, parameter in trained_parameters(model).items()
    }


def move_averages(averages: dict[str, torch.Tensor], model: nn.Module, weight: float) -> None:
    """``average += weight * (parameter - average)``, in place, where each parameter lies."""
    place_averages(averages, model)
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            averages[name].mul_(1 - weight).add_(parameter.detach(), alpha=weight)


def averages_put_in(
    model: nn.Module, averages: dict[str, torch.Tensor]
) -> AbstractContextManager[None]:
    """A context in which the trained parameters hold their averages, in their own type."""
    place_averages(averages, model)
    return weights_replaced(model, averages)


def place_averages(averages: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Averages are taken before a model is moved or sharded, and come back whole from a file."""
    for name, parameter in trained_parameters(model).items():
        average = averages[name]
        moved = average.device != parameter.device
        if moved or isinstance(average, DTensor) != isinstance(parameter, DTensor):
            averages[name] = placed_like(parameter.detach().float(), average)
