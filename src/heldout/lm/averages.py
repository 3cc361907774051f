"""Running averages of the trained weights, in float32 whatever the type of the weights."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import nn

from heldout.lm.weights import place_in_own_type, trained_parameters, weights_replaced, whole


class RunningAverages:
    """One average of every trained weight, which moves along with training.

    Taken before a model is moved or sharded, and whole after they were loaded from a file, they
    are brought to where the weights lie whenever they are used.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, torch.Tensor] = {}

    @property
    def have_started(self) -> bool:
        """Whether there is anything to put in: not so in a model that was never trained."""
        return bool(self._by_name)

    def start(self, model: nn.Module) -> None:
        """Begin at the weights as they are."""
        self._by_name = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in trained_parameters(model).items()
        }

    def move(self, model: nn.Module, share: float) -> None:
        """``average += share * (weight - average)``, in place."""
        averages = self.placed(model)
        with torch.no_grad():
            for name, parameter in trained_parameters(model).items():
                averages[name].mul_(1 - share).add_(parameter.detach(), alpha=share)

    def placed(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """The averages by the names of the weights, on the same devices and sharded alike."""
        place_in_own_type(self._by_name, model)
        return self._by_name

    def put_in(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context in which the trained weights hold their averages, in their own type."""
        return weights_replaced(model, self.placed(model))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages unsharded on the CPU; every process must call it."""
        return whole(self._by_name)

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from the averages of a ``state_dict``."""
        self._by_name.update(state)
