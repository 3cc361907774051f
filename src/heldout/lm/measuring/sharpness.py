"""How sharply a model predicts true text: entropy, largest probability, rank of the true token."""

# W windows, N scored tokens, n of them in a block, V vocabulary

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from heldout.core.errors import TrainingDiverged
from heldout.core.files import written_whole
from heldout.lm.logit_blocks import scored_statistics
from heldout.lm.nll import evaluating
from heldout.lm.tokenize import Window, collate


@dataclass(frozen=True)
class Sharpness:
    """Of each scored token, in the order of the windows."""

    nats_N: np.ndarray  # negative log-probability of the true token
    entropy_N: np.ndarray  # of the distribution it was predicted from, nats
    top_N: np.ndarray  # probability of the likeliest token
    rank_N: np.ndarray  # of the true token, 0 where it is the likeliest
    window_N: np.ndarray  # index of the window
    position_N: np.ndarray  # place within the window's scored tokens

    @property
    def nats_per_token(self) -> float:
        return float(self.nats_N.mean())

    def per_window(self, values_N: np.ndarray) -> np.ndarray:
        """(W,) sums over each window's tokens."""
        return np.bincount(self.window_N, weights=values_N)

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with written_whole(path) as partial:
            np.savez(partial, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Sharpness":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**arrays)


def sharpness(
    model: torch.nn.Module, windows: Sequence[Window], pad_id: int, *, batch_size: int
) -> Sharpness:
    """One forward pass over the windows; a few logits are held at a time.

    Every window must have a scored token. The model is in evaluation mode meanwhile. Raises
    TrainingDiverged where a loss is no finite number.
    """
    device = next(model.parameters()).device
    found: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    with evaluating(model):
        for start in range(0, len(windows), batch_size):
            batch = collate(windows[start : start + batch_size], pad_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            values_NK, rows_N = scored_statistics(model, batch, _statistics)
            found.append(values_NK.cpu().numpy())
            owners.append(start + rows_N.cpu().numpy())
    nats_N, entropy_N, top_N, rank_N = np.concatenate(found).T
    if not np.isfinite(nats_N).all():
        raise TrainingDiverged(
            "A held-out loss is not a finite number: the model's weights are at fault. Lower "
            "train.learning_rate."
        )
    window_N = np.concatenate(owners)
    starts = np.searchsorted(window_N, np.arange(len(windows)))
    position_N = np.arange(len(window_N)) - starts[window_N]
    return Sharpness(nats_N, entropy_N, top_N, rank_N.astype(np.int64), window_N, position_N)


def _statistics(logits_nV: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
    """(n, 4): loss, entropy, the largest probability, and the rank of the target."""
    log_nV = logits_nV.log_softmax(-1)
    target_n1 = log_nV.gather(1, targets_n[:, None])
    return torch.stack(
        [
            -target_n1[:, 0],
            -(log_nV.exp() * log_nV).sum(-1),
            log_nV.amax(-1).exp(),
            (log_nV > target_n1).sum(-1).float(),
        ],
        dim=1,
    )
