"""Weight decay: decoupled from the gradient, with a choice of what it reaches.

Every step multiplies a decayed weight by ``1 - learning_rate * rate``, under ``attach`` whatever
the optimizer would do with its own ``weight_decay``; where that cannot be had, it is refused. On
LoRA factors this pulls the model toward its base, not toward zero, because the product BA shrinks;
a penalty on the product itself, whatever its factors, is ``l2_penalty``.

Data-limited pretraining wants about 30 times the usual rate (arXiv 2509.14786).
"""

import re
from dataclasses import dataclass
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.matrices import is_matrix

SOURCE = "Loshchilov and Hutter 2019, arXiv 1711.05101"
COST = "none: one multiplication per weight, inside the optimizer"


@dataclass(frozen=True)
class WeightDecay(Regularizer):
    """``rate`` per step and unit of learning rate; ``vectors`` are what is no matrix of a
    product: biases, norms, the rates of selective scans.

    ``only`` and ``never`` are regular expressions that are searched for in parameter names, such as
    ``mlp`` or ``layers\\.[0-3]\\.``; of the weights above, those are decayed alone, or left out.
    """

    rate: float = 0.1
    embeddings: bool = True
    vectors: bool = False
    only: str = ""
    never: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", self.rate >= 0, "0 or more")
        for field in ("only", "never"):
            try:
                re.compile(getattr(self, field))
            except re.error as error:
                raise UserError(
                    f"WeightDecay({field}={getattr(self, field)!r}) is not a regular expression: "
                    f"{error}."
                ) from None

    def check(self, model: Any, recipe: Recipe | None) -> None:
        rate = recipe.train.learning_rate if recipe else None
        if rate is not None and rate * self.rate >= 1:
            raise UserError(
                f"WeightDecay(rate={self.rate}) times the learning rate {rate} must be under 1."
            )
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for field in ("only", "never"):
            pattern = getattr(self, field)
            if pattern and not any(re.search(pattern, name) for name in trained):
                raise UserError(
                    f"WeightDecay({field}={pattern!r}) matches none of the {len(trained)} trained "
                    f"parameters, such as {next(iter(trained), 'none')}."
                )
        if self.rate and not any(self._reaches(name, p) for name, p in trained.items()):
            raise UserError(
                "WeightDecay reaches no trained parameter: widen only and never, or set "
                "vectors=true or embeddings=true."
            )

    def parameter_options(self, name: str, parameter: Any, options: dict[str, Any]) -> dict:
        return {**options, "weight_decay": self.rate if self._reaches(name, parameter) else 0.0}

    def _reaches(self, name: str, parameter: Any) -> bool:
        is_embedding = any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
        return (
            (is_matrix(name, parameter) or self.vectors)
            and (self.embeddings or not is_embedding)
            and bool(re.search(self.only, name))
            and not (self.never and re.search(self.never, name))
        )
