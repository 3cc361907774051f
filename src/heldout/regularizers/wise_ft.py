"""WiSE-FT: after training, go part of the way back to the base model.

The weights become ``base + alpha * (tuned - base)`` for each alpha of a grid, and the alpha of the
lowest held-out loss is kept; of equals, the larger. The way back often keeps most of what was
learned and loses less of what the base could do. With LoRA the base is the model without its
adapter, and the product B A is scaled exactly, through B. An adapter that began as a part of the
base weights (PiSSA, OLoRA) goes back through both factors to its beginning. The choice is one of
few on the validation part, so its loss is a little too good: believe the sealed test.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.lm.adapters import adapter_start, is_adapted
from heldout.lm.weights import placed_like, trained_parameters

SOURCE = "Wortsman et al. 2022, arXiv 2109.01903"
COST = "one evaluation per alpha after training; a copy of the trained weights off the device"


def interpolated(base: torch.Tensor, tuned: torch.Tensor, alpha: float) -> torch.Tensor:
    """``base + alpha * (tuned - base)`` in float32; exact at 0 and at 1."""
    return torch.lerp(base.float(), tuned.float(), alpha)


@dataclass(frozen=True)
class WiseFT(Regularizer):
    """``alphas`` are tried: 0 is the base model, 1 the tuned one."""

    NEEDS_VALIDATION: ClassVar[bool] = True

    alphas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

    _base: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            raise UserError(
                "WiseFT(alphas=...) must be one or more numbers from 0 to 1, "
                f"got {list(self.alphas)}."
            )

    def check(self, model: Any, recipe: Recipe | None) -> None:
        strange = [
            name
            for name in trained_parameters(model)
            if is_adapted(model) and not ("lora_" in name or "modules_to_save" in name)
        ]
        if strange := strange or [n for n in trained_parameters(model) if "lora_magnitude" in n]:
            raise UserError(
                f"WiseFT can scale whole weights and the product of LoRA, not {strange[0]}: train "
                "with plain LoRA or model.method=full."
            )

    def prepare(self, model: Any) -> None:
        self._base.clear()
        self._base.update(adapter_start(model))
        for name, parameter in trained_parameters(model).items():
            if name in self._base:
                continue
            if "lora_B" in name or "lora_embedding_B" in name:
                self._base[name] = torch.zeros(parameter.shape)
            elif "lora_" not in name:
                self._base[name] = parameter.detach().to("cpu", copy=True)

    def finish(self, model: Any, evaluate: Callable[[], DocumentLosses]) -> dict[str, float]:
        parameters = trained_parameters(model)
        tuned = {name: parameters[name].detach().to("cpu", copy=True) for name in self._base}

        def put_in(alpha: float) -> None:
            with torch.no_grad():
                for name, base in self._base.items():
                    value = interpolated(base.cpu(), tuned[name], alpha)
                    parameters[name].copy_(placed_like(parameters[name], value))

        losses = {}
        for alpha in sorted(self.alphas, reverse=True):
            put_in(alpha)
            losses[alpha] = evaluate().nats_per_token
        chosen = min(losses, key=lambda alpha: losses[alpha])  # of equals the first, the largest
        put_in(chosen)
        return {"wise_ft_alpha": chosen, "wise_ft_nll": losses[chosen]}
