"""Small-batch noise: a large batch is given the gradient noise of a smaller one.

Small batches often generalize better, because of the noise in their gradients and not because of
how they walk. Here the micro-batches of a window get random weights that leave the mean gradient
as it is: with q the share of the scored tokens in each, the losses are multiplied by
``1 + s (x - sum q x)``, x standard normal, and ``s^2 = (factor - 1) / (1 - sum q^2)``. Then the
gradient has, in expectation over the data, the covariance of a batch ``factor`` times smaller,
as long as examples are independent. More micro-batches give better noise; each process weighs its
own. A window of one micro-batch, as the last of an epoch may be, is left as it is. The loss that
is logged is the weighted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import NOISE, Gradient, Regularizer
from heldout.lm.tokenize import IGNORED
from heldout.lm.weights import seed_of

SOURCE = "Wu et al. 2020, arXiv 1906.07405"
COST = "none: one random number per micro-batch"

_STREAM = 2  # regularizers of one seed draw unrelated numbers


def micro_batch_weights(counts: Sequence[int], factor: float, seed: int) -> list[float]:
    """Random weights of micro-batches with ``counts`` scored tokens; their mean over tokens is 1.

    The sum of their weighted losses has the gradient noise of a batch ``factor`` times smaller.
    """
    shares = torch.tensor(counts, dtype=torch.float64) / max(1, sum(counts))
    spread = 1 - shares.square().sum()
    if spread < 1e-9 or not any(counts):  # all tokens are in one, or there are none
        return [1.0] * len(counts)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(counts), generator=generator, dtype=torch.float64)
    deviations = ((factor - 1) / spread).sqrt() * (x - (shares * x).sum())
    return (1 + deviations).tolist()


@dataclass(frozen=True)
class SmallBatchNoise(Regularizer):
    """``factor`` is how many times smaller the batch is to look; 1 adds no noise."""

    AROUND = NOISE
    READS_TOKENS = True
    CONFLICTS: ClassVar = {
        "FreeLB": "weights of micro-batches may be negative, and FreeLB would descend there; use "
        "SMART or VAT instead of FreeLB."
    }

    factor: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("factor", self.factor >= 1, "1 or more")
        self.require("seed", self.seed >= 0, "0 or more")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if recipe is not None and recipe.accumulation_steps < 2:
            raise UserError(
                "SmallBatchNoise weighs the micro-batches of a step, and there is one: set "
                f"train.micro_batch_size under train.batch_size ({recipe.train.batch_size})."
            )

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        if self.factor == 1:
            return gradient()
        if len(gradient.window) < 2:
            if step == 0:
                raise UserError(
                    "SmallBatchNoise weighs the micro-batches of a step, and there is one: set "
                    "train.micro_batch_size under train.batch_size, or accumulate gradients."
                )
            return gradient()
        rank = 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank = torch.distributed.get_rank()
        counted = [(batch["labels"][:, 1:] != IGNORED).sum() for batch in gradient.window]
        counts = torch.stack(counted).tolist()
        seed = seed_of(seed_of(self.seed, _STREAM), step, rank)
        return gradient(scales=micro_batch_weights(counts, self.factor, seed))
