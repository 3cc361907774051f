"""Weight decay: decoupled from the gradient, with a choice of what it reaches.

Every step multiplies a decayed weight by ``1 - learning_rate * rate``. On LoRA factors this pulls
the model toward its base, not toward zero, because the product BA shrinks.

Data-limited pretraining wants about 30 times the usual rate (arXiv 2509.14786).
"""

from dataclasses import dataclass
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer

SOURCE = "Loshchilov and Hutter 2019, arXiv 1711.05101"
COST = "none: one multiplication per weight, inside the optimizer"


@dataclass(frozen=True)
class WeightDecay(Regularizer):
    """``rate`` per step and unit of learning rate; vectors (biases, norms) only if asked for."""

    rate: float = 0.1
    embeddings: bool = True
    vectors: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate < 0:
            raise UserError(f"WeightDecay(rate=...) must be 0 or more, got {self.rate}.")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        rate = recipe.train.learning_rate if recipe else None
        if rate is not None and rate * self.rate >= 1:
            raise UserError(
                f"WeightDecay(rate={self.rate}) times the learning rate {rate} must be under 1."
            )

    def parameter_options(self, name: str, parameter: Any, options: dict[str, Any]) -> dict:
        is_embedding = any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
        reached = (parameter.ndim >= 2 or self.vectors) and (self.embeddings or not is_embedding)
        return {**options, "weight_decay": self.rate if reached else 0.0}
