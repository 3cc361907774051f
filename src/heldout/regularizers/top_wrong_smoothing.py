"""Top-wrong label smoothing: a little of the target goes to the most likely wrong tokens only.

The target keeps ``1 - amount``; the ``top`` wrong tokens that the model itself finds most likely
share ``amount`` evenly. Which tokens these are is not differentiated. In large vocabularies uniform
smoothing mostly lifts tokens that fit nowhere; this lifts those that could have been right. The
smoothed target follows the model, so it can also confirm the model's errors: measure it.
"""

# N scored tokens, V vocabulary, K most likely wrong tokens

from dataclasses import dataclass

import torch

from heldout.core.regularizer import Regularizer

SOURCE = "a variant of Szegedy et al. 2016, arXiv 1512.00567"
COST = "one more search for the largest logits of each chunk"


def top_wrong_smoothing_term(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, amount: float, top: int
) -> torch.Tensor:
    """What this smoothing adds to each token's cross-entropy, in nats, shape (N,).

    As with label smoothing the normalizer cancels. With fewer than ``top`` wrong tokens in the
    vocabulary, all share the amount.
    """
    index_N1 = targets_N[:, None]
    num_wrong = min(top, logits_NV.shape[1] - 1)
    wrong_NV = logits_NV.detach().scatter(1, index_N1, -torch.inf)
    wrong_NK = logits_NV.gather(1, wrong_NV.topk(num_wrong, dim=1).indices)
    return amount * (logits_NV.gather(1, index_N1).squeeze(1) - wrong_NK.mean(dim=1))


@dataclass(frozen=True)
class TopWrongSmoothing(Regularizer):
    """``amount`` is the probability that the ``top`` most likely wrong tokens share."""

    STRENGTH = "amount"

    amount: float = 0.1
    top: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("amount", 0 <= self.amount < 1, "at least 0 and under 1")
        self.require("top", self.top >= 1, "1 or more")

    def token_loss(self, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        return top_wrong_smoothing_term(logits_NV, targets_N, self.strength, self.top)
