"""Confidence penalty: predictions of low entropy cost extra.

Each token's loss becomes ``cross-entropy - weight * H(p)`` with H the entropy of the prediction in
nats. Like label smoothing it works against overconfidence, but leaves it to the model where the
spread-out probability goes. Too large a weight flattens every prediction. The authors also let
the weight rise during training: ``schedule="rise"``.
"""

# N scored tokens, V vocabulary

from dataclasses import dataclass

import torch

from heldout.core.regularizer import Regularizer

SOURCE = "Pereyra et al. 2017, arXiv 1701.06548"
COST = "one more softmax over the logits of each chunk"


def confidence_penalty_term(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, weight: float
) -> torch.Tensor:
    """What the penalty adds to each token's cross-entropy, -weight * entropy, shape (N,)."""
    log_probs_NV = logits_NV.log_softmax(dim=1)
    return weight * (log_probs_NV.exp() * log_probs_NV).sum(dim=1)


@dataclass(frozen=True)
class ConfidencePenalty(Regularizer):
    """``weight`` multiplies the entropy of each prediction, in nats."""

    STRENGTH = "weight"

    weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("weight", self.weight >= 0, "0 or more")

    def token_loss(self, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        return confidence_penalty_term(logits_NV, targets_N, self.strength)
