"""Layer-wise decay: the learning rate falls from the top layer to the bottom.

A parameter ``d`` layers below the top trains at ``rate * factor**d``: the final norm and the output
layer at the full rate, the topmost decoder layer at ``factor`` times that, and so on down to the
embeddings. With LoRA the highest layer that has an adapter has the full rate. Helps where the lower
layers know what is needed already; of little use from scratch. A tied output layer counts as an
embedding.
"""

from dataclasses import dataclass, field
from typing import Any

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.layers import depths, trained_depths

SOURCE = "Howard and Ruder 2018, arXiv 1801.06146"
COST = "none: one group of the optimizer per layer"


@dataclass(frozen=True)
class LayerDecay(Regularizer):
    """``factor`` from each layer to the one below; 1 is the same rate everywhere."""

    factor: float = 0.9

    # Parameter name -> layers below the highest trained one.
    _distances: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("factor", 0 < self.factor <= 1, "above 0 and at most 1")

    def check(self, model: Any, recipe: Recipe | None) -> None:
        if len(trained_depths(model)) < 2:
            raise UserError(
                "LayerDecay: all trained weights are in one layer, so there is nothing to grade; "
                "leave it out."
            )

    def prepare(self, model: Any) -> None:
        top = trained_depths(model)[-1]
        self._distances.clear()
        self._distances.update({name: top - depth for name, depth in depths(model).items()})

    def parameter_options(self, name: str, parameter: Any, options: dict[str, Any]) -> dict:
        return {**options, "lr": options["lr"] * self.factor ** self._distances[name]}
