"""VAT: predictions must not change along the one direction that changes them most.

``weight * KL(p || p_r)`` is added for each scored token, with p held fixed and p_r the prediction
from embeddings moved by r. Of the directions r/|r| the one with the largest curvature of the
divergence is sought by power iteration from a random start: ``d <- g / |g|`` with g the gradient
at ``xi * d``; then ``r = epsilon * d``. Norms are Frobenius norms over each sequence.

``epsilon`` and ``xi`` are shares of the norm of a typical embedded sequence of that length, so
that they mean the same for every model. All passes see the same dropout masks. It needs no
labels: prompts that are not scored are moved too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from heldout.core.regularizer import Cost, Regularizer, TokenSum
from heldout.lm.passes import DivergenceLoss, Passes, divergence_gradient, embedding_scale
from heldout.lm.sequences import (
    sequence_index,
    sequence_noise,
    sequence_norms,
    typical_norms,
)
from heldout.lm.weights import seed_of

SOURCE = "Miyato et al. 2018, arXiv 1704.03976"
COST = "two more forwards and backwards, and one of each for every further iteration"

_STREAM = 13  # regularizers of one seed draw unrelated numbers


def unit_per_sequence(values_BTD: torch.Tensor, index_BT: torch.Tensor) -> torch.Tensor:
    """Scaled to a Frobenius norm of 1 over each sequence; 0 on padding and where all is 0."""
    kept_BTD = values_BTD.masked_fill((index_BT < 0)[..., None], 0.0)
    # Twice, because squares of small gradients are too small for float32.
    for largest in (True, False):
        norms_BT1 = sequence_norms(kept_BTD, index_BT, largest=largest)
        kept_BTD = kept_BTD / norms_BT1.clamp(min=torch.finfo(kept_BTD.dtype).tiny)
    return kept_BTD


@dataclass(frozen=True)
class VAT(Regularizer):
    """``weight`` of the divergence, ``epsilon`` of the move, power ``iterations`` at ``xi``."""

    STRENGTH = "weight"

    weight: float = 1.0
    epsilon: float = 0.02
    xi: float = 0.01
    iterations: int = 1
    seed: int = 0

    _now: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "seed"):
            self.require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("epsilon", "xi"):
            self.require(name, getattr(self, name) > 0, "above 0")
        self.require("iterations", self.iterations >= 1, "1 or more")

    @property
    def cost(self) -> Cost:
        return Cost(forwards=self.iterations + 1, backwards=self.iterations + 1)

    def before_step(self, model: Any, step: int) -> None:
        self._now.update(step=step, scale=embedding_scale(model))

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> DivergenceLoss | TokenSum:
        if self.strength == 0:
            return passes.nothing()
        seed = seed_of(self.seed, _STREAM)
        index_BT = sequence_index(batch)
        norms_BT1 = typical_norms(index_BT, passes.width, self._now["scale"])
        noise_BTD = sequence_noise(batch, passes.width, seed, self._now["step"], normal=True)
        unit_BTD = unit_per_sequence(noise_BTD, index_BT)
        for _ in range(self.iterations):
            probe_BTD = self.xi * norms_BT1 * unit_BTD
            gradient_BTD = divergence_gradient(passes, probe_BTD, "forward")
            unit_BTD = unit_per_sequence(gradient_BTD, index_BT)
        offset_BTD = self.epsilon * norms_BT1 * unit_BTD
        moved = passes.again(embedding_offset=offset_BTD, same_dropout=True)
        return DivergenceLoss(moved, "forward", self.strength, task_fixed=True)
