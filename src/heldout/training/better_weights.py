"""Which weights of a step count: the raw ones or an average of past ones, by validation loss.

An average lags behind at first and where the learning rate falls; where the rate stays up it has
less of the noise of single steps. Which of the two is better is measured, at every evaluation, and
everything that evaluates a training asks here, so that a trial and a run judge alike.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Evaluation, Regularizer, Weights, overrides_hook
from heldout.training.steps import evaluation_weights


@contextmanager
def better_weights(
    model: Any,
    regularizers: Sequence[Regularizer],
    measure: Callable[[], DocumentLosses],
    step: int,
    epoch: float,
) -> Iterator[Evaluation]:
    """The evaluation of a step; within this context ``model`` holds the weights that it is of.

    ``measure`` returns the validation losses of the model as it is. Of equal losses
    the raw weights count. Cost: one measuring, and a second where there is an average.
    """
    raw = measure()
    if not any(regularizer.has_average for regularizer in regularizers):
        yield Evaluation(step, epoch, raw)
        return
    with evaluation_weights(model, regularizers):
        average = measure()
        if average.nats_per_token < raw.nats_per_token:
            yield Evaluation(step, epoch, average, "average", raw)
            return
    yield Evaluation(step, epoch, raw, "raw", average)


def averages(regularizers: Sequence[Regularizer]) -> bool:
    """Whether evaluations may measure two sets of weights."""
    return any(overrides_hook(regularizer, "evaluation_weights") for regularizer in regularizers)


@contextmanager
def chosen_weights(
    model: Any, regularizers: Sequence[Regularizer], weights: Weights
) -> Iterator[None]:
    """Within this context ``model`` holds ``weights``; "average" is raw where there is none."""
    if weights == "raw":
        yield
        return
    with evaluation_weights(model, regularizers):
        yield
