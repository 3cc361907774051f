"""FreeLB: train on the worst embeddings nearby, at no more backward passes than ascent steps.

Every micro-batch is run ``ascents`` times with an offset on its embeddings that climbs the loss;
the gradients of all runs are averaged, so none is spent on the climb alone. An offset starts at
random, climbs by its own normalized gradient and stays in a ball:
``d <- project(d + rate * g / |g|)``, with the Frobenius norm over one sequence.

Sizes are shares of the norm of a typical embedded sequence, so that one default suits models of
any scale; the paper's values for BERT (start .08, rate .04, ball .6) are about these shares of it.
A sequence is a row of a padded batch or a document of a packed one. All runs of a step see the
same dropout masks.
"""

# B batch, T tokens, D width, S sequences

from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from heldout.core.errors import UserError
from heldout.core.regularizer import LOSS, Cost, Gradient, Regularizer
from heldout.lm.head import unwrapped
from heldout.lm.sequences import sequence_index, sequence_lengths, sequence_noise

SOURCE = "Zhu et al. 2020, arXiv 1909.11764"
COST = "each ascent after the first is one more forward and backward of the whole window"


def ascended(
    offset_BTD: torch.Tensor,
    gradient_BTD: torch.Tensor,
    index_BT: torch.Tensor,
    rate_S: torch.Tensor,
    radius_S: torch.Tensor,
) -> torch.Tensor:
    """One step of projected, normalized ascent, sequence by sequence; padding stays 0.

    ``index_BT`` is the sequence of each token, -1 for padding; rates and radii are lengths.
    """
    gradient_S = sequence_norms(gradient_BTD, index_BT).clamp_min(torch.finfo(torch.float32).tiny)
    climbed_BTD = offset_BTD + gradient_BTD * _spread(rate_S / gradient_S, index_BT)
    shrink_S = (radius_S / sequence_norms(climbed_BTD, index_BT).clamp_min(1e-30)).clamp_max(1.0)
    return climbed_BTD * _spread(shrink_S, index_BT)


def sequence_norms(values_BTD: torch.Tensor, index_BT: torch.Tensor) -> torch.Tensor:
    """(S,): the Frobenius norm of ``values_BTD`` over each sequence."""
    squares_BT = values_BTD.square().sum(-1)
    kept_BT = index_BT >= 0
    sums_S = squares_BT.new_zeros(int(index_BT.max()) + 1)
    return sums_S.index_add(0, index_BT[kept_BT], squares_BT[kept_BT]).sqrt()


@dataclass(frozen=True)
class FreeLB(Regularizer):
    """``ascents`` runs of each window; ``start``, ``rate`` and ``radius`` as shares of the norm."""

    STRENGTH = "radius"
    AROUND = LOSS

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
            if not getattr(self, name) >= 0:
                raise UserError(f"FreeLB({name}=...) must be 0 or more, got {getattr(self, name)}.")

    @property
    def cost(self) -> Cost:
        return Cost(windows=self.ascents)

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> torch.Tensor:
        if self.strength == 0:
            return gradient()
        weight = unwrapped(model).get_input_embeddings().weight
        width, size = weight.shape[1], _root_mean_square(weight.detach())
        indices = [sequence_index(batch) for batch in gradient.window]
        norms = [size * (sequence_lengths(index) * width).sqrt() for index in indices]
        offsets = []
        for batch, index, norm_S in zip(gradient.window, indices, norms, strict=True):
            noise_BTD = sequence_noise(batch, width, self.seed, step, normal=True)
            start_S = min(self.start, self.strength) * norm_S
            length_S = start_S / sequence_norms(noise_BTD, index).clamp_min(1e-30)
            offsets.append(noise_BTD * _spread(length_S, index))
        loss = torch.zeros((), device=weight.device)
        for ascent in range(self.ascents):
            leaves = [offset.detach().requires_grad_() for offset in offsets]
            loss = loss + gradient(scales=1 / self.ascents, embedding_offsets=leaves)
            if ascent < self.ascents - 1:
                offsets = [
                    ascended(
                        leaf.detach(), leaf.grad, index, self.rate * norm, self.strength * norm
                    )
                    for leaf, index, norm in zip(leaves, indices, norms, strict=True)
                ]
        return loss


def _spread(values_S: torch.Tensor, index_BT: torch.Tensor) -> torch.Tensor:
    """(B, T, 1): the value of each token's sequence, 0 on padding."""
    return (values_S[index_BT.clamp_min(0)] * (index_BT >= 0))[..., None]


def _root_mean_square(weight: torch.Tensor) -> torch.Tensor:
    mean = weight.float().square().mean()
    return (mean.full_tensor() if isinstance(mean, DTensor) else mean).sqrt()
