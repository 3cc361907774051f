"""Temperature: after training, divide all logits by the number that held-out text asks for.

A model that has seen its rows often is overconfident, and part of its held-out loss is
that alone. The logits of the best weights are divided by one temperature, chosen by the loss of the
validation part and folded into the last norm (or the head), so that the model stays a plain one.
No answer to "which token is likeliest" changes; probabilities do, and with them sampling: text
drawn at temperature 1 becomes as varied as held-out text is. Where training kept the model
calibrated the temperature comes out near 1, and little is gained.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.adapters import is_adapted
from heldout.lm.logit_scale import find_logit_scale

SOURCE = "Guo et al. 2017, arXiv 1706.04599"
COST = "about eight evaluations after training"


@dataclass(frozen=True)
class Temperature(Regularizer):
    """Temperatures from 1 / ``most`` to ``most`` are tried."""

    NEEDS_VALIDATION: ClassVar[bool] = True

    most: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("most", 1 < self.most <= 10, "above 1 and at most 10")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if is_adapted(model):
            raise UserError(
                "Temperature is folded into the last norm of the base model, which an adapter does "
                "not hold: train with model.method=full, or take it out with "
                "regularizers.temperature=false."
            )
        find_logit_scale(model)

    def finish(self, model: Any, evaluate: Callable[[], DocumentLosses]) -> dict[str, float]:
        from scipy.optimize import minimize_scalar

        scale = find_logit_scale(model)

        def loss(log_temperature: float) -> float:
            scale.set(math.exp(-log_temperature))
            return evaluate().nats_per_token

        plain = loss(0.0)
        reach = math.log(self.most)
        found = minimize_scalar(
            loss, bounds=(-reach, reach), method="bounded", options={"xatol": 0.01, "maxiter": 12}
        )
        is_better = found.fun < plain
        log_temperature = float(found.x) if is_better else 0.0
        scale.set(math.exp(-log_temperature))
        return {
            "temperature": math.exp(log_temperature),
            "temperature_nll": float(found.fun) if is_better else plain,
        }
