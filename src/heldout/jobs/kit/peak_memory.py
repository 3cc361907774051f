"""The most memory that this process has held."""

import resource
from pathlib import Path

import torch


def peak_gb() -> float:
    """In GB so far, on the device that trains."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # ru_maxrss starts at what the starting process had held
            return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
