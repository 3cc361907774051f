"""z-loss: keep the softmax normalizer near 1, so that logits do not drift.

Each token's loss grows by ``weight * log(Z)^2`` with Z the sum of exp(logits). It stabilizes long
training in low precision, at a weight so small that the fit hardly changes; it is no remedy for
overfitting by itself.
"""

# N scored tokens, V vocabulary

from dataclasses import dataclass

import torch

from heldout.core.regularizer import Regularizer

SOURCE = "Chowdhery et al. 2022, arXiv 2204.02311"
COST = "one more softmax over the logits of each chunk"


def z_loss_term(logits_NV: torch.Tensor, targets_N: torch.Tensor, weight: float) -> torch.Tensor:
    """What the z-loss adds to each token's cross-entropy, shape (N,)."""
    return weight * logits_NV.logsumexp(dim=1).square()


@dataclass(frozen=True)
class ZLoss(Regularizer):
    """``weight`` multiplies the squared logarithm of the normalizer."""

    STRENGTH = "weight"

    weight: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("weight", self.weight >= 0, "0 or more")

    def token_loss(self, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        return z_loss_term(logits_NV, targets_N, self.strength)
