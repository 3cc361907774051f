"""The device that trains, whatever its maker: its name, its memory and its random numbers."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import torch


def training_device() -> str:
    """The accelerator that torch has (cuda, xpu, mps), else cpu."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found is not None else "cpu"


def free_bytes(device: str | torch.device) -> int | None:
    """Memory that can be had on the device; None where that cannot be told."""
    kind = torch.device(device).type
    if kind in ("cpu", "meta"):
        return int(psutil.virtual_memory().available)
    module: Any = torch.get_device_module(kind)
    if kind == "mps":  # memory is the machine's own, of which torch may have a part
        ours = module.recommended_max_memory() - module.driver_allocated_memory()
        return int(min(ours, psutil.virtual_memory().available))
    if hasattr(module, "mem_get_info"):
        return int(module.mem_get_info(torch.device(device))[0])
    return None


def peak_bytes() -> int:
    """The most memory that this process has held, on the device that trains."""
    kind = training_device()
    module: Any = torch.get_device_module(kind)
    if kind not in ("cpu", "mps") and hasattr(module, "max_memory_allocated"):
        return int(module.max_memory_allocated())
    process = psutil.Process()
    if os.name == "nt":
        return int(process.memory_info().peak_wset)
    if sys.platform.startswith("linux"):
        # ru_maxrss would start at what the starting process had held.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def empty_cache() -> None:
    """Give memory that torch, or glibc's allocator, only keeps back to the device or system."""
    module: Any = torch.get_device_module(training_device())
    if hasattr(module, "empty_cache"):
        module.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def trained_precision(asked: str) -> str:
    """The type that training multiplies in, float32 or bfloat16, for ``train.precision``.

    ``auto`` is bfloat16 where the accelerator is faster, and sound, in it; never on the CPU, where
    small models with batches of ever new shapes are slower (decision 024).
    """
    if asked != "auto":
        return asked
    kind = training_device()
    faster = torch.cuda.is_bf16_supported() if kind == "cuda" else kind == "xpu"
    return "bfloat16" if faster else "float32"


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float64, on the CPU if its device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def device_random_state(device: torch.device) -> torch.Tensor | None:
    """The state that random numbers on an accelerator are drawn from; None on the CPU."""
    if device.type in ("cpu", "meta"):
        return None
    module: Any = torch.get_device_module(device.type)
    return module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)


def set_device_random_state(device: torch.device, state: torch.Tensor) -> None:
    """Go on from a state of ``device_random_state``."""
    module: Any = torch.get_device_module(device.type)
    if device.type == "mps":
        module.set_rng_state(state)
    else:
        module.set_rng_state(state, device)
