"""R-Drop: two passes with different dropout must agree.

The loss becomes ``(CE1 + CE2) / 2 + weight * (KL(p1 || p2) + KL(p2 || p1)) / 2``, where p1 and p2
are what two passes over the same tokens predict under different dropout masks. It helps where
dropout does: on small sets, with many epochs. The paper adds both cross-entropies instead of
taking their mean, so its alpha is twice this ``weight``; its authors' code is as here.

The model needs dropout: ``Dropout(hidden=...)`` puts it in. Terms that others add to each token's
loss, such as label smoothing, act on both passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Cost, Regularizer, TokenSum
from heldout.lm.passes import DivergenceLoss, Passes, ScoredPass
from heldout.regularizers.dropout import Dropout

SOURCE = "Liang et al. 2021, arXiv 2106.14448"
COST = "one more forward and backward"

_NO_DROPOUT = (
    "RDrop compares two passes that differ by dropout, and nothing is dropped in this model: add "
    "Dropout(hidden=0.1), or leave RDrop out."
)


def agreement(second: ScoredPass, weight: float) -> DivergenceLoss:
    """For ``joint_loss`` of the first pass: half of the cross-entropy, and the divergence."""
    return DivergenceLoss(second, "symmetric", weight / 2, cross_entropy=0.5)


@dataclass(frozen=True)
class RDrop(Regularizer):
    """``weight`` of the disagreement between the two passes."""

    STRENGTH = "weight"

    weight: float = 1.0

    _seen: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("weight", self.weight >= 0, "0 or more")

    @property
    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=1)

    def check(self, model: Any, recipe: Recipe | None) -> None:
        # Without a recipe it is not known yet what others put in: extra_loss looks again.
        if recipe is not None and set(recipe.regularizers) <= {"r_drop"} and not _drops(model):
            raise UserError(_NO_DROPOUT)

    def extra_loss(self, passes: Passes, batch: Mapping[str, Any]) -> DivergenceLoss | TokenSum:
        if self.strength == 0:
            return passes.nothing()
        second = passes.again()
        if not self._seen:
            # An adapter that is still zero gives equal passes in spite of its dropout, and so does
            # dropout whose schedule starts at 0.
            first_NX, second_NX = (
                each.logits_NV if each.hidden_ND is None else each.hidden_ND
                for each in (passes.task, second)
            )
            assert first_NX is not None
            assert second_NX is not None
            equal = torch.equal(first_NX, second_NX)
            if equal and not (_drops(passes.model) or Dropout.is_at_work(passes.model)):
                raise UserError(_NO_DROPOUT)
            self._seen["dropout"] = True
        return agreement(second, self.strength)


def _drops(model: Any) -> bool:
    """Whether a dropout module or number is above 0; dropout by hooks shows in the passes."""
    for module in model.modules():
        number = getattr(module, "attention_dropout", 0.0)
        if isinstance(module, nn.Dropout) and module.p > 0:
            return True
        if isinstance(number, float) and number > 0:
            return True
    return False
