"""Whether a model fits into memory, told before its weights are read."""

from pathlib import Path

import torch
from safetensors import safe_open

from heldout.core.errors import UserError
from heldout.lm.accelerator import free_bytes


def num_weights_in(folder: Path) -> int:
    """Numbers in the safetensors files of a folder, by their headers."""
    num_weights = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118  # no mapping
                size = 1
                for extent in weights.get_slice(key).get_shape():
                    size *= extent
                num_weights += size
    return num_weights


def refuse_too_large(
    num_weights: int, name: str, dtype: torch.dtype, device: str | torch.device
) -> None:
    """Raises UserError where the weights alone, in ``dtype``, exceed the free memory."""
    kind = str(dtype).removeprefix("torch.")
    refuse_too_many_bytes(num_weights * dtype.itemsize, name, kind, device)


def refuse_too_many_bytes(needed: int, name: str, kind: str, device: str | torch.device) -> None:
    """The same of weights that take ``needed`` bytes; ``kind`` is what they are held in."""
    free = free_bytes(device)
    if free is not None and needed > free:
        raise UserError(
            f"Model {name} needs {needed / 1e9:.1f} GB for its weights in {kind}, "
            f"{free / 1e9:.1f} GB are free: use a larger machine, or a smaller model."
        )
