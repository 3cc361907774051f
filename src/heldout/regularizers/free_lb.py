"""FreeLB: train on the worst embeddings nearby, at no more backward passes than ascent steps.

Every micro-batch is run ``ascents`` times with an offset on its embeddings that climbs the loss;
the gradients of all runs are averaged, so none is spent on the climb alone. An offset starts at
random, climbs by its own normalized gradient and stays in a ball:
``d <- project(d + rate * g / |g|)``, with the Frobenius norm over one sequence.

Sizes are shares of the norm of a typical embedded sequence, so that one default suits models of
any scale; the paper's values for BERT (start 0.08, rate 0.04, ball 0.6) are about these shares.
A sequence is a row of a padded batch or a document of a packed one. All runs of a step see the
same dropout masks.
"""

# B batch, T tokens, D width

from dataclasses import dataclass
from typing import Any

import torch

from heldout.core.errors import UserError
from heldout.core.regularizer import LOSS, Cost, Gradient, Regularizer
from heldout.lm.head import unwrapped
from heldout.lm.passes import embedding_scale
from heldout.lm.sequences import (
    sequence_index,
    sequence_noise,
    sequence_norms,
    typical_norms,
)
from heldout.lm.weights import seed_of

SOURCE = "Zhu et al. 2020, arXiv 1909.11764"
COST = "each ascent after the first is one more forward and backward of the whole window"

_STREAM = 14  # regularizers of one seed draw unrelated numbers


def ascended_in_ball(
    offset_BTD: torch.Tensor,
    gradient_BTD: torch.Tensor,
    index_BT: torch.Tensor,
    rate_BT1: torch.Tensor,
    radius_BT1: torch.Tensor,
) -> torch.Tensor:
    """One step of projected, normalized ascent, sequence by sequence; padding does not move.

    ``index_BT`` is the sequence of each token, -1 for padding; the rate and the radius, equal for
    all tokens of a sequence, are lengths.
    """
    tiny = torch.finfo(torch.float32).tiny
    gradient_BTD = gradient_BTD.masked_fill((index_BT < 0)[..., None], 0.0)
    lengths_BT1 = sequence_norms(gradient_BTD, index_BT).clamp(min=tiny)
    climbed_BTD = offset_BTD + rate_BT1 / lengths_BT1 * gradient_BTD
    lengths_BT1 = sequence_norms(climbed_BTD, index_BT).clamp(min=tiny)
    return climbed_BTD * (radius_BT1 / lengths_BT1).clamp(max=1.0)


@dataclass(frozen=True)
class FreeLB(Regularizer):
    """``ascents`` runs of each window; ``start``, ``rate`` and ``radius`` as shares of the norm."""

    STRENGTH = "radius"
    AROUND = LOSS
    READS_TOKENS = True

    radius: float = 0.04
    rate: float = 0.0025
    start: float = 0.005
    ascents: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ascents < 2:
            raise UserError(
                f"FreeLB(ascents=...) must be 2 or more, got {self.ascents}: one run never climbs."
            )
        for name in ("radius", "rate", "start"):
            self.require(name, getattr(self, name) >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(windows=self.ascents)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        if self.strength == 0:
            return gradient()
        width = unwrapped(model).get_input_embeddings().embedding_dim
        scale = embedding_scale(model)
        indices = [sequence_index(batch) for batch in gradient.window]
        norms = [typical_norms(index, width, scale) for index in indices]
        seed = seed_of(self.seed, _STREAM)
        offsets = []
        for batch, index, norm_BT1 in zip(gradient.window, indices, norms, strict=True):
            noise_BTD = sequence_noise(batch, width, seed, step, normal=True)
            lengths_BT1 = sequence_norms(noise_BTD, index).clamp(min=1e-30)
            offsets.append(min(self.start, self.strength) * norm_BT1 / lengths_BT1 * noise_BTD)
        loss = torch.zeros((), device=offsets[0].device)
        for ascent in range(self.ascents):
            leaves = [offset.detach().requires_grad_() for offset in offsets]
            loss = loss + gradient(scales=1 / self.ascents, embedding_offsets=leaves)
            if ascent == self.ascents - 1:
                break
            offsets = []
            for leaf, index, norm_BT1 in zip(leaves, indices, norms, strict=True):
                assert leaf.grad is not None
                rate, radius = self.rate * norm_BT1, self.strength * norm_BT1
                offsets.append(ascended_in_ball(leaf.detach(), leaf.grad, index, rate, radius))
        return loss
