"""The most memory that this process has held."""

from heldout.lm.accelerator import peak_bytes


def peak_gb() -> float:
    """In GB so far, on the device that trains."""
    return peak_bytes() / 1e9
