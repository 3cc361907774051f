"""SMART: predictions must not change under the worst small change of the embedded tokens.

``weight * max over |d| <= epsilon of KL(p || p_d) + KL(p_d || p)`` is added for each scored token,
with p_d the prediction from embeddings moved by d, and no number of d above epsilon. The maximum
is sought by projected gradient ascent: d starts as normal noise, then
``d <- clip(d + rate * g / max|g|, -epsilon, epsilon)``, with max|g| taken over its sequence.

``epsilon`` is a share of the root mean square of the embedding's numbers, so that it means the
same for every model; the paper's 1e-5 for BERT is a share of 2e-4, which bfloat16 cannot hold.
``noise`` and ``rate`` count in epsilons, as they do in the paper's settings. All passes see the
same dropout masks. The second half of SMART is ``bregman_proximal_point``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from heldout.core.regularizer import Cost, Regularizer, TokenSum
from heldout.lm.passes import DivergenceLoss, Passes, divergence_gradient, embedding_scale
from heldout.lm.sequences import sequence_index, sequence_noise, sequence_norms
from heldout.lm.weights import seed_of

SOURCE = "Jiang et al. 2020, arXiv 1911.03437"
COST = "two more forwards and backwards, and one of each for every further ascent"

_STREAM = 12  # regularizers of one seed draw unrelated numbers


def ascended_in_cube(
    offset_BTD: torch.Tensor,
    gradient_BTD: torch.Tensor,
    index_BT: torch.Tensor,
    rate: float,
    epsilon: float,
) -> torch.Tensor:
    """One projected step up the gradient, which is scaled to 1 at its largest in each sequence.

    ``index_BT`` says which sequence a token belongs to, -1 for padding, which does not move.
    """
    largest_BT1 = sequence_norms(gradient_BTD, index_BT, largest=True)
    scaled_BTD = gradient_BTD / largest_BT1.clamp(min=torch.finfo(gradient_BTD.dtype).tiny)
    moved_BTD = (offset_BTD + rate * scaled_BTD).clamp(-epsilon, epsilon)
    return moved_BTD.masked_fill((index_BT < 0)[..., None], 0.0)


@dataclass(frozen=True)
class SMART(Regularizer):
    """``weight`` of the divergence, ``epsilon`` of the perturbation, number of ``ascents``."""

    STRENGTH = "weight"

    weight: float = 1.0
    epsilon: float = 0.02
    ascents: int = 1
    rate: float = 100.0
    noise: float = 1.0
    seed: int = 0

    _now: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "seed"):
            self.require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("epsilon", "rate", "noise"):
            self.require(name, getattr(self, name) > 0, "above 0")
        self.require("ascents", self.ascents >= 1, "1 or more")

    @property
    def cost(self) -> Cost:
        return Cost(forwards=self.ascents + 1, backwards=self.ascents + 1)

    def before_step(self, model: Any, step: int) -> None:
        self._now.update(step=step, epsilon=self.epsilon * embedding_scale(model))

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> DivergenceLoss | TokenSum:
        if self.strength == 0:
            return passes.nothing()
        epsilon, seed = self._now["epsilon"], seed_of(self.seed, _STREAM)
        index_BT = sequence_index(batch)
        noise_BTD = sequence_noise(batch, passes.width, seed, self._now["step"], normal=True)
        offset_BTD = self.noise * epsilon * noise_BTD
        for _ in range(self.ascents):
            gradient_BTD = divergence_gradient(passes, offset_BTD, "symmetric")
            offset_BTD = ascended_in_cube(
                offset_BTD, gradient_BTD, index_BT, self.rate * epsilon, epsilon
            )
        moved = passes.again(embedding_offset=offset_BTD, same_dropout=True)
        return DivergenceLoss(moved, "symmetric", self.strength)
