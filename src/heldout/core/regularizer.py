"""The contract of a regularizer: one published idea that overrides only the hooks it needs.

In the order of a run::

    check -> prepare -> attached:                 once, before the optimizer exists
        parameter_options                         per parameter
        edit_batch                                per micro-batch, before its tokens are counted
        for each optimizer step:
            before_step
            around_gradient:                      may compute the window's gradient several times
                for each micro-batch of the window:
                    forward, token_loss per chunk, extra_loss, backward
            clip, optimizer step
            after_step
            now and then: evaluation_weights around measuring and saving; decide
    finish                                        once, with the best weights in the model

Where the order of several matters it is fixed, whatever the order they are given in:
``around_gradient`` nests by ``AROUND``, the lowest innermost, and ``after_step`` goes by ``AFTER``;
all else goes in the given order.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.parameters import CheckedParameters
from heldout.core.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cost:
    """What a regularizer adds to a plain step of one forward and one backward."""

    forwards: int = 0  # more forwards each time the gradient is computed
    backwards: int = 0
    windows: int = 1  # how often the gradient of the whole window is computed
    parameters: float = 0.0  # memory, in copies of the trained parameters
    averages: float = 0.0  # memory, in float32 copies of the trained parameters
    base: float = 0.0  # memory, in copies of all parameters


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


# Which weights of a step: those that training goes on with, or what regularizers put in for them.
Weights = Literal["raw", "average"]


@dataclass(frozen=True)
class Evaluation:
    """One measuring of a checkpoint on the validation part.

    ``validation`` is of ``weights``; ``other`` of those that were measured beside them and were no
    better, None where there is no average.
    """

    step: int
    epoch: float
    validation: DocumentLosses
    weights: Weights = "raw"
    other: DocumentLosses | None = None

    @property
    def by_weights(self) -> dict[Weights, DocumentLosses]:
        """All that was measured: raw weights, then the average if there is one."""
        if self.other is None:
            return {self.weights: self.validation}
        if self.weights == "raw":
            return {"raw": self.validation, "average": self.other}
        return {"raw": self.other, "average": self.validation}


@dataclass(frozen=True)
class Continue:
    """Train on."""


@dataclass(frozen=True)
class Stop:
    """End training; the best checkpoint so far is the result."""

    reason: str


@dataclass(frozen=True)
class RollBack:
    """Put the best checkpoint's weights back, forget the optimizer's moments, and train on.

    ``rate_factor`` multiplies the learning rate from here on.
    """

    rate_factor: float
    reason: str


Decision = Continue | Stop | RollBack


class Gradient(Protocol):
    """Computes the gradient of the window's loss, all added terms included."""

    window: Sequence[Mapping[str, Any]]  # this process's micro-batches, in order

    def __call__(
        self,
        *,
        scales: Sequence[float] | float = 1.0,
        embedding_offsets: Sequence["torch.Tensor"] | None = None,
    ) -> "torch.Tensor":
        """Add the gradient to ``parameter.grad`` and return the loss, detached.

        ``scales`` multiplies the loss, of all micro-batches or of each. ``embedding_offsets`` are
        leaves (B, T, D), one per micro-batch, added to the embedded tokens; their gradients are
        added to ``offset.grad``. Every call of one step sees the same batches and the same
        dropout masks. Over several processes ``parameter.grad`` is their mean after the call, and
        the loss is this process's own.
        """


@dataclass(frozen=True)
class Regularizer(CheckedParameters):
    """Base of all regularizers; parameters are the fields of the frozen dataclass.

    The file's name is the regularizer's name in recipes. Its module states ``SOURCE`` (paper) and
    ``COST`` (words) as literals, so that listing needs no import. What it keeps between hooks
    (anchors, averages) goes into ``field(init=False, repr=False, compare=False)``.
    """

    STRENGTH: ClassVar[str] = ""  # the field that ``schedule`` scales; empty: none
    AROUND: ClassVar[int] = 0  # nesting of around_gradient: see ORDER below
    CONFLICTS: ClassVar[Mapping[str, str]] = {}  # class name -> why not together, what instead
    NEEDS_VALIDATION: ClassVar[bool] = False  # one held-out part; folds will not do
    NEEDS_FLOAT32: ClassVar[bool] = False  # changes weights by less than half precision holds
    READS_TOKENS: ClassVar[bool] = False  # of the window's batches, in around_gradient
    AFTER: ClassVar[int] = 0  # order of after_step: CHANGE, PUT_BACK, AVERAGE below

    # constant, or rise:0.2 (from 0 over the first fifth of the steps), or fall:0.5 (to 0 over the
    # last half); a bare rise or fall takes the whole run.
    schedule: str = field(default="constant", kw_only=True)

    _progress: float = field(default=0.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.schedule != "constant" and not self.STRENGTH:
            raise UserError(f"{name}(schedule=...): it has no strength to schedule; leave it out.")
        schedule_factor(self.schedule, 0.0, name)

    @property
    def strength(self) -> float:
        """The scheduled field as it is at this step."""
        factor = schedule_factor(self.schedule, self._progress, type(self).__name__)
        return getattr(self, self.STRENGTH) * factor

    def set_progress(self, share: float) -> None:
        """Tell which share of all steps is done; called before ``before_step``."""
        object.__setattr__(self, "_progress", share)

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

    def edit_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A micro-batch of training as it leaves the collator; runs in the loader's workers."""
        return batch

    def before_step(self, model: Any, step: int) -> None:
        """Called before the first micro-batch of optimizer step ``step``, counted from 0."""

    # None means: adds nothing. A method would say (logits_NV, targets_N) -> nats_N, the term to
    # be added to each token's cross-entropy; it runs inside each chunk of the logit-free loss.
    token_loss: ClassVar[Any] = None

    # None means: adds nothing. A method would say (passes, batch) -> DivergenceLoss | TokenSum |
    # PerStep, for one micro-batch; ``passes`` is a heldout.lm.passes.Passes, which runs the model
    # again, and DivergenceLoss stands beside it.
    extra_loss: ClassVar[Any] = None

    def around_gradient(self, model: Any, gradient: Gradient, step: int) -> "torch.Tensor":
        """Fill ``parameter.grad`` for one optimizer step, before clipping; returns the loss.

        All gradients are empty on entry. Random numbers must follow from ``step`` (and a seed)
        alone, so that a resumed run and every process draw the same.
        """
        return gradient()

    def after_step(self, model: Any, step: int, rates: dict[str, float]) -> None:
        """Called after optimizer step ``step``; ``rates`` maps parameter names to their rates."""

    @property
    def has_average(self) -> bool:
        """Whether ``evaluation_weights`` has other weights to put in, as training stands."""
        return overrides_hook(self, "evaluation_weights")

    @contextmanager
    def evaluation_weights(self, model: Any) -> Iterator[None]:
        """Swap in the weights that are measured beside the last step's, and saved if better."""
        yield

    def decide(self, history: Sequence[Evaluation]) -> Decision:
        """What to do after an evaluation; depends on the history alone, so it survives a resume."""
        return Continue()

    def finish(self, model: Any, evaluate: Callable[[], DocumentLosses]) -> dict[str, float]:
        """Improve the best weights, which ``model`` holds, in place; returns figures to record.

        ``evaluate`` measures the model as it is on the validation part.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state, f"{type(self).__name__} keeps no state"


# The order of around_gradient, from the inside: what the task's loss is, the weights it is taken
# at, penalties on the weights themselves, the ascent of that sum, what is done to the finished
# gradient.
LOSS, WEIGHTS, PENALTY, ASCENT, NOISE, MASK = range(10, 70, 10)

# The order of after_step: changes of the weights, what must not have changed, averages of them.
CHANGE, PUT_BACK, AVERAGE = range(3)


def independent(regularizer: Regularizer) -> Regularizer:
    """The same parameters, with nothing kept from any run; the one given stays as it is."""
    fresh = copy.copy(regularizer)
    forget(fresh)
    return fresh


def forget(regularizer: Regularizer) -> None:
    """Drop what is kept between hooks, so that another run begins as the first did."""
    for each in dataclasses.fields(regularizer):
        if each.init:
            continue
        if each.default_factory is not dataclasses.MISSING:
            object.__setattr__(regularizer, each.name, each.default_factory())
        elif each.default is not dataclasses.MISSING:
            object.__setattr__(regularizer, each.name, each.default)


def overrides_hook(regularizer: Regularizer, name: str) -> bool:
    """Whether a regularizer overrides the hook ``name``."""
    return getattr(type(regularizer), name) is not getattr(Regularizer, name)


def schedule_factor(schedule: str, progress: float, owner: str = "Regularizer") -> float:
    """The multiplier of a strength when the share ``progress`` of all steps is done."""
    kind, _, text = schedule.partition(":")
    try:
        share = float(text) if text else 1.0
    except ValueError:
        share = -1.0
    if kind == "constant" and not text:
        return 1.0
    if kind in ("rise", "fall") and 0 < share <= 1:
        left = progress if kind == "rise" else 1 - progress
        return min(1.0, max(0.0, left / share))
    raise UserError(
        f"{owner}(schedule=...) must be constant, rise, fall, or rise:S or fall:S with S a share "
        f"of the steps above 0 and at most 1, got {schedule!r}."
    )


TokenLoss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
