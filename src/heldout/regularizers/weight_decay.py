"""Weight decay: decoupled from the gradient, with a choice of what it reaches.

Every step multiplies a decayed weight by ``1 - learning_rate * rate``, under ``attach`` whatever
the optimizer would do with its own ``weight_decay``; where that cannot be had, it is refused. On
LoRA factors this pulls the model toward its base, not toward zero, because the product BA shrinks;
a penalty on the product itself, whatever its factors, is ``l2_penalty``.

What a rate does depends on the learning rate and on the number of steps: a weight without a
gradient keeps ``exp(-sum)`` of itself, with the sum of ``learning_rate * rate`` over all steps. In
place of the rate a recipe can say that sum for an epoch, ``shrink_per_epoch``: at 0.1 each of the
planned epochs takes a tenth of the weight, on the average over a schedule, at any learning rate and
number of steps. Its inverse is AdamW's timescale in epochs (arXiv 2405.13698). It is refused on
LoRA factors, whose decay is another thing.

Data-limited pretraining wants about 30 times the usual rate (arXiv 2509.14786).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.adapters import is_adapted
from heldout.lm.matrices import is_matrix

SOURCE = "Loshchilov and Hutter 2019, arXiv 1711.05101"
COST = "none: one multiplication per weight, inside the optimizer"
ALTERNATIVES = ("rate", "shrink_per_epoch")  # a setting of one takes the place of a recipe's other


@dataclass(frozen=True)
class WeightDecay(Regularizer):
    """``rate`` per step and unit of learning rate (0.1), or in its place ``shrink_per_epoch``, the
    sum of learning rate times ``rate`` over the steps of an epoch, the mean of all planned ones;
    ``vectors`` are what is no matrix of a product: biases, norms, the rates of selective scans.

    ``only`` and ``never`` are regular expressions that are searched for in parameter names, such as
    ``mlp`` or ``layers\\.[0-3]\\.``; of the weights above, those are decayed alone, or left out.
    """

    rate: float | None = None
    shrink_per_epoch: float | None = None
    embeddings: bool = True
    vectors: bool = False
    only: str = ""
    never: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", self.rate is None or self.rate >= 0, "0 or more")
        shrink = self.shrink_per_epoch
        self.require("shrink_per_epoch", shrink is None or shrink >= 0, "0 or more")
        if self.rate is not None and shrink is not None:
            raise UserError(
                f"WeightDecay(rate={self.rate:g}, shrink_per_epoch={shrink:g}) says twice how "
                "strong it is: give one of them."
            )
        for field in ("only", "never"):
            try:
                re.compile(getattr(self, field))
            except re.error as error:
                raise UserError(
                    f"WeightDecay({field}={getattr(self, field)!r}) is not a regular expression: "
                    f"{error}."
                ) from None

    @property
    def decay(self) -> float:
        """The ``rate``, by default 0.1; UserError for a shrink, which ``over`` makes one."""
        if self.shrink_per_epoch is None:
            return 0.1 if self.rate is None else self.rate
        raise UserError(
            f"{self._as_shrink} needs the planned learning rates, which heldout fit knows: give "
            "rate, which is shrink_per_epoch divided by their sum over the steps of an epoch."
        )

    @property
    def _as_shrink(self) -> str:
        return f"WeightDecay(shrink_per_epoch={self.shrink_per_epoch:g})"

    def over(self, learning_rates: Sequence[float], epochs: float) -> "WeightDecay":
        """The same by ``rate``, for a training whose planned steps have these learning rates.

        Raises UserError where a step would take away a whole weight or more.
        """
        if self.shrink_per_epoch is None:
            return self
        total, shrink = float(sum(learning_rates)), self.shrink_per_epoch * epochs
        if not total:  # nothing is trained, as in a warm-up alone
            shrink = 0.0
        if shrink and shrink * max(learning_rates) >= total:
            raise UserError(
                f"{self._as_shrink} would take away more than a weight in one of the "
                f"{len(learning_rates)} planned steps: lower it, or set train.warmup_steps lower."
            )
        return replace(self, rate=shrink / total if shrink else 0.0, shrink_per_epoch=None)

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if self.shrink_per_epoch is None:
            self._check_rate(recipe)
        elif is_adapted(model):
            raise UserError(
                f"{self._as_shrink} says how far all weights are pulled toward zero; decay of LoRA "
                "factors pulls the model to its base instead, by twice that: give rate, use "
                "l2_penalty, or train with model.method=full."
            )
        elif recipe is None:
            _ = self.decay
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for field in ("only", "never"):
            pattern = getattr(self, field)
            if pattern and not any(re.search(pattern, name) for name in trained):
                raise UserError(
                    f"WeightDecay({field}={pattern!r}) matches none of the {len(trained)} trained "
                    f"parameters, such as {next(iter(trained), 'none')}."
                )
        if (
            self.rate != 0
            and self.shrink_per_epoch != 0
            and not any(self._reaches(name, p) for name, p in trained.items())
        ):
            raise UserError(
                "WeightDecay reaches no trained parameter: widen only and never, or set "
                "vectors=true or embeddings=true."
            )

    def _check_rate(self, recipe: Recipe | None) -> None:
        rate = recipe.train.learning_rate if recipe else None
        if rate is not None and rate * self.decay >= 1:
            raise UserError(
                f"WeightDecay(rate={self.decay}) times the learning rate {rate} must be under 1."
            )

    def parameter_options(self, name: str, parameter: Any, options: dict[str, Any]) -> dict:
        return {**options, "weight_decay": self.decay if self._reaches(name, parameter) else 0.0}

    def _reaches(self, name: str, parameter: Any) -> bool:
        is_embedding = any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
        return (
            (is_matrix(name, parameter) or self.vectors)
            and (self.embeddings or not is_embedding)
            and bool(re.search(self.only, name))
            and not (self.never and re.search(self.never, name))
        )
