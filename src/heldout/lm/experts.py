"""The loss that balances the experts of a mixture: what the model itself adds to its loss.

Shazeer et al. 2017, arXiv 1701.06538; Fedus et al. 2022, arXiv 2101.03961.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from heldout.lm.head import unwrapped


def balancing_weight(model: nn.Module) -> float:
    """What the model multiplies its balancing loss by; 0 where it adds none.

    It adds one where ``output_router_logits`` is set in its configuration.
    """
    inner = unwrapped(model)
    if not getattr(inner.config.get_text_config(), "output_router_logits", False):
        return 0.0
    names = ("router_aux_loss_coef", "aux_loss_coef")
    owners = (inner.config.get_text_config(), inner)  # TRL sets the former
    found = (getattr(owner, name, None) for owner in owners for name in names)
    return float(next((weight for weight in found if weight is not None), 0.0))


@contextmanager
def balancing_losses(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within this context each call of the model leaves its balancing loss, weighted, in the list.

    Empty where there is none. A mean over the call's tokens, padding left out.
    """
    found: list[torch.Tensor] = []
    weight = balancing_weight(model)
    if not weight:
        yield found
        return

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(getattr(output, "aux_loss", None), torch.Tensor):
            found.append(weight * output.aux_loss)

    handle = unwrapped(model).register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
