"""Trained weights: copies, swaps and random numbers that are the same however they are sharded."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from zlib import crc32

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trained parameters by name, each once, without the prefixes that wrappers add."""
    return {name: p for name, p in _parameters(model).items() if p.requires_grad}


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name.removeprefix("_orig_mod.").removeprefix("module."): parameter
        for name, parameter in model.named_parameters()
    }


def copies(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Detached clones."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def placed_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value`` on the device, in the type and with the sharding of ``parameter``.

    ``value`` is whole and equal on all processes, or sharded already. Copies only if needed.
    """
    if isinstance(value, DTensor) and not isinstance(parameter, DTensor):
        value = value.full_tensor()  # FSDP keeps the outermost weights whole after the forward
    if isinstance(parameter, DTensor) and not isinstance(value, DTensor):
        whole = value.to(parameter.device, parameter.dtype)
        return distribute_tensor(
            whole, parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    return value.to(parameter.device, parameter.dtype)


def place(anchors: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Move anchors, in place, to where the trained parameters of the same names lie now.

    Anchors are taken before a model is moved or sharded, so they are placed at the first step.
    """
    for name, parameter in trained_parameters(model).items():
        if name in anchors:
            anchors[name] = placed_like(parameter, anchors[name])


def place_in_own_type(tensors: MutableMapping[str, torch.Tensor], model: nn.Module) -> None:
    """As ``place``, for what is of another type than the weights, such as float32 or a mask."""
    for name, parameter in trained_parameters(model).items():
        value = tensors.get(name)
        if value is None:
            continue
        resharded = isinstance(value, DTensor) != isinstance(parameter, DTensor)
        if resharded or value.device != parameter.device:
            tensors[name] = placed_like(parameter.detach().float(), value).to(value.dtype)


def unsharded(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor gathered from all processes, which must all call it; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Unsharded on the CPU, to be saved; every process must call it."""
    return {name: unsharded(value).detach().cpu() for name, value in tensors.items()}


def random_like(parameter: torch.Tensor, seed: int, *, normal: bool) -> torch.Tensor:
    """Standard normal numbers, or uniform ones in [0, 1), float32, in the shape of ``parameter``.

    The same on every process and for every sharding: a shard is cut from the whole.
    """
    generator = torch.Generator(parameter.device).manual_seed(seed)
    draw = torch.randn if normal else torch.rand
    numbers = draw(parameter.shape, generator=generator, device=parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(
            numbers, parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    return numbers


def global_norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm of all tensors as one vector, over all shards."""
    return unsharded(nn.utils.get_total_norm(tensors))


def seed_of(seed: int, step: int, part: int | str = 0) -> int:
    """One seed for a part of step ``step``; distinct numbers or names give unrelated seeds.

    Weights go by their names: which of them are trained at a step may differ between processes.
    """
    index = crc32(part.encode()) if isinstance(part, str) else part
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + index * 0x94D049BB133111EB) % (
        2**64
    )
    mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) % 2**64
    return (mixed ^ (mixed >> 32)) % 2**63


@contextmanager
def weights_replaced(model: nn.Module, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within this context the named parameters hold ``values``; moves no data.

    A pending backward sees the own weights, if the context is left before it. Sharded parameters
    are copied instead, because FSDP keeps pointers to them.
    """
    parameters = _parameters(model)  # some may be frozen for now
    kept = {}
    try:
        for name, value in values.items():
            parameter = parameters[name]
            if isinstance(parameter, DTensor):
                kept[name] = parameter.detach().clone()
                parameter.data.copy_(value)
            else:
                kept[name] = parameter.data
                parameter.data = placed_like(parameter, value)
        torch.clear_autocast_cache()  # it keeps casts of parameters by identity
        yield
    finally:
        torch.clear_autocast_cache()
        for name, value in kept.items():
            if isinstance(value, DTensor):
                parameters[name].data.copy_(value)
            else:
                parameters[name].data = value
