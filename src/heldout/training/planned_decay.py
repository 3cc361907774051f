"""Weight decay over a whole training, by the recipe's planned epochs and its learning rates.

Trainings of fewer epochs (trials of a search, folds, what follows from them) decay at each step as
the whole one would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.arguments import rate_shares


@dataclass(frozen=True)
class PlannedDecay:
    """``decay`` per step and unit of learning rate; ``rates_T`` of all planned steps."""

    decay: float
    rates_T: np.ndarray

    @classmethod
    def of(
        cls,
        regularizers: Sequence[Regularizer],
        recipe: Recipe,
        learning_rate: float,
        max_steps: int,
    ) -> Self | None:
        """None without weight decay. Raises UserError for a shrink that so few steps cannot do."""
        found = [each for each in regularizers if isinstance(each, WeightDecay)]
        if not found:
            return None
        rates_T = learning_rate * rate_shares(recipe, max_steps)
        return cls(found[0].over(rates_T.tolist(), recipe.train.max_epochs).decay, rates_T)

    @property
    def shrink(self) -> float:
        """Over all planned steps: a weight without a gradient keeps ``exp(-shrink)``."""
        return self.until(len(self.rates_T))

    def until(self, step: int) -> float:
        """The shrink of the first ``step`` steps."""
        return float(self.decay * self.rates_T[:step].sum())


def decay_in_words(
    regularizers: Sequence[Regularizer], recipe: Recipe, max_steps: int
) -> str | None:
    """For a plan; None where nothing can be said before the learning rate is found.

    Raises UserError for a shrink that so few steps cannot do.
    """
    rate = recipe.train.learning_rate
    planned = PlannedDecay.of(regularizers, recipe, rate or 1.0, max_steps)
    is_shrink = any(
        isinstance(each, WeightDecay) and each.shrink_per_epoch for each in regularizers
    )
    if planned is None or not planned.decay or (rate is None and not is_shrink):
        return None
    left = f"{np.exp(-planned.shrink):.0%}".replace("%", " %")
    if rate is None:
        return (
            f"over {max_steps:,} planned steps a weight without a gradient shrinks to {left}, at "
            "whatever learning rate is found"
        )
    return (
        f"{planned.decay:.3g} at learning rate {rate:g}: over {max_steps:,} planned steps a weight "
        f"without a gradient shrinks to {left}"
    )


def with_planned_decay(
    regularizers: Sequence[Regularizer], recipe: Recipe, learning_rate: float, max_steps: int
) -> list[Regularizer]:
    """The same regularizers, with a decay that is said as a shrink as one per step."""
    planned = PlannedDecay.of(regularizers, recipe, learning_rate, max_steps)

    def by_rate(decay: WeightDecay) -> WeightDecay:
        assert planned is not None
        return decay.over(planned.rates_T.tolist(), recipe.train.max_epochs)

    return [by_rate(each) if isinstance(each, WeightDecay) else each for each in regularizers]
