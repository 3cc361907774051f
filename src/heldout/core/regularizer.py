"""The contract of a regularizer: one published idea that overrides only the moments it needs.

In the order of a run::

    check -> prepare -> attached:                 once, before the optimizer exists
        parameter_options                         per parameter
        for each optimizer step:
            before_step
            for each micro-batch:
                forward, token_loss per chunk, extra_loss, backward
            clip, optimizer step
            after_step
            now and then: evaluation_weights around measuring and saving; decide
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cost:
    """What a regularizer adds to a plain step."""

    forwards: int = 0
    backwards: int = 0
    parameters: float = 0.0  # memory, in copies of the trained parameters


@dataclass(frozen=True)
class TokenSum:
    """An added loss summed over scored tokens, in nats.

    Divided by the scored tokens of the whole accumulation window, like the task loss.
    """

    value: "torch.Tensor"


@dataclass(frozen=True)
class PerStep:
    """An added loss that counts once per optimizer step, whatever accumulation and world size."""

    value: "torch.Tensor"


@dataclass(frozen=True)
class Evaluation:
    """One measuring of a checkpoint on the validation part."""

    step: int
    epoch: float
    validation: DocumentLosses


@dataclass(frozen=True)
class Continue:
    """Train on."""


@dataclass(frozen=True)
class Stop:
    """End training; the best checkpoint so far is the result."""

    reason: str


Decision = Continue | Stop


@dataclass(frozen=True)
class Regularizer:
    """Base of all regularizers; parameters are the fields of the frozen dataclass.

    The file's name is the regularizer's name in recipes. Its module states ``SOURCE`` (paper) and
    ``COST`` (words) as literals, so that listing needs no import.
    """

    @property
    def cost(self) -> Cost:
        return Cost()

    def check(self, model: Any, recipe: Recipe | None) -> None:
        """Refuse with UserError what would silently do nothing on this model."""

    def prepare(self, model: Any) -> None:
        """Take anchors of the untouched model, before the optimizer and any wrapping."""

    @contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        """Edit the model for training; everything is undone on leaving, also on an exception."""
        yield

    def parameter_options(self, name: str, parameter: Any, options: dict[str, Any]) -> dict:
        """Optimizer options of one trained parameter; folded over all regularizers in order."""
        return options

    def before_step(self, model: Any, step: int) -> None:
        """Called before the first micro-batch of optimizer step ``step``, counted from 0."""

    # None means: adds nothing. A method would say (logits_NV, targets_N) -> nats_N, the term to
    # be added to each token's cross-entropy; it runs inside each chunk of the logit-free loss.
    token_loss: ClassVar[Any] = None

    # None means: adds nothing. A method would say (forward, batch) -> TokenSum | PerStep, where
    # forward(batch) runs the model again: float32 logits (N, V) and targets (N,) of scored tokens.
    extra_loss: ClassVar[Any] = None

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        """Called after the optimizer step; ``rates`` maps parameter names to learning rates."""

    @contextmanager
    def evaluation_weights(self, model: Any) -> Iterator[None]:
        """Swap in the weights that are measured and saved."""
        yield

    def decide(self, history: Sequence[Evaluation]) -> Decision:
        """What to do after an evaluation; depends on the history alone, so it survives a resume."""
        return Continue()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state, f"{type(self).__name__} keeps no state"


def moments_used(regularizer: Regularizer, name: str) -> bool:
    """Whether a regularizer overrides the moment ``name``."""
    return getattr(type(regularizer), name) is not getattr(Regularizer, name)


TokenLoss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
