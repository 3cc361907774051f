"""Whether a model fits into memory, told before its weights are read."""

import os
from pathlib import Path

import torch
from safetensors import safe_open

from heldout.core.errors import UserError


def refuse_too_large(
    folder: Path, name: str, dtype: torch.dtype, device: str | torch.device
) -> None:
    """Raises UserError where the weights alone, in ``dtype``, exceed the free memory.

    Reads the headers of the safetensors files only.
    """
    num_weights = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118  # no mapping
                size = 1
                for extent in weights.get_slice(key).get_shape():
                    size *= extent
                num_weights += size
    needed, free = num_weights * dtype.itemsize, free_bytes(device)
    if free is not None and needed > free:
        raise UserError(
            f"Model {name} needs {needed / 1e9:.1f} GB for its weights in "
            f"{str(dtype).removeprefix('torch.')}, {free / 1e9:.1f} GB are free: use a larger "
            "machine, or a smaller model."
        )


def free_bytes(device: str | torch.device) -> int | None:
    """Memory that can be had on the device; None where that cannot be told."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
