"""What a look at a model leaves as it was found: the modes of its modules, and random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from heldout.lm.accelerator import device_random_state, set_device_random_state


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within this context every module is in evaluation mode; its own is restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True)
class RandomState:
    """Where random numbers come from next: on the CPU, and on ``device`` if it is another."""

    device: torch.device
    cpu: torch.Tensor
    accelerator: torch.Tensor | None


def random_state(device: torch.device) -> RandomState:
    """The random states that dropout draws from: of the CPU, and of ``device``."""
    return RandomState(device, torch.get_rng_state(), device_random_state(device))


@contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Within this context random numbers come as they came after ``state`` was taken."""
    current = random_state(state.device)
    _set_state(state)
    try:
        yield
    finally:
        _set_state(current)


def _set_state(state: RandomState) -> None:
    torch.set_rng_state(state.cpu)
    if state.accelerator is not None:
        set_device_random_state(state.device, state.accelerator)
