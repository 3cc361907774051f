"""What a look at a model leaves as it was found: the modes of its modules, and random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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


def random_state(device: torch.device) -> list[torch.Tensor]:
    """The random states that dropout draws from: of the CPU, and of ``device`` if it is a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


@contextmanager
def replayed(states: list[torch.Tensor]) -> Iterator[None]:
    """Within this context random numbers come as they came after ``states`` were taken."""
    current = torch.get_rng_state()
    current_gpu = torch.cuda.get_rng_state() if len(states) > 1 else None
    _set_state(states)
    try:
        yield
    finally:
        _set_state([current] if current_gpu is None else [current, current_gpu])


def _set_state(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
