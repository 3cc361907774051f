"""What the rules look at: one number each from measurements and facts, None where not known.

A feature never guesses. ``FEATURES`` maps the names that ``causes.toml`` uses to these functions.
"""

import math
from collections.abc import Callable, Mapping

from heldout.core.distributions import exact_bounds
from heldout.core.facts import Facts
from heldout.core.finite import finite
from heldout.core.measurement import Contrast, Measurement
from heldout.diagnosis.over_epochs import (
    best_epoch,
    course_of,
    first_epoch_rise,
    first_epoch_surely,
    judged_of,
    late_gain_share,
    later_rise,
    less_errors,
    rise,
    score_gain,
    training_rise,
)
from heldout.diagnosis.writing import came_apart, is_broken, loops

MeasuredByName = Mapping[str, Measurement]
Feature = Callable[[MeasuredByName, Facts], float | None]

LITTLE, MUCH = 0.12, 0.3  # of the base model's loss on the training rows, learned of them
BY_CHANCE = 0.5  # of answers are likelier after their own prompt if it says nothing of them
ONLY_STOPPING = {"early_stopping", "rollback"}  # choose a checkpoint, and change no step


# What was measured on the two parts


def _contrast(measured: MeasuredByName, name: str, control: str) -> Contrast | None:
    found = measured.get(name)
    return found.contrasts.get(control) if found else None


def _low(contrast: Contrast | None) -> float | None:
    """The lower end of the interval; None where it was withheld."""
    return finite(contrast.interval.low) if contrast else None


def heldout_change(measured: MeasuredByName, facts: Facts) -> float | None:
    """Held-out loss minus the base model's, nats/token; negative is better."""
    contrast = _contrast(measured, "test_nll_best", "base")
    return contrast.difference if contrast else None


def gap(measured: MeasuredByName, facts: Facts) -> float | None:
    """Held-out minus training loss, minus the same under the base model, nats/token."""
    contrast = _contrast(measured, "generalization_gap_best", "base")
    return contrast.difference if contrast else None


def gap_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """The lower end of the interval of ``gap``."""
    contrast = _contrast(measured, "generalization_gap_best", "base")
    return _low(contrast)


def train_gain(measured: MeasuredByName, facts: Facts) -> float | None:
    """By how much the training loss lies below the base model's, nats/token."""
    difference, change = gap(measured, facts), heldout_change(measured, facts)
    return None if difference is None or change is None else difference - change


def train_change(measured: MeasuredByName, facts: Facts) -> float | None:
    """Training loss minus the base model's, nats/token; what fits its rows lowers it."""
    gain = train_gain(measured, facts)
    return None if gain is None else -gain


def kept_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Held-out gain over training gain: 1 where all that was learned carries over."""
    gain, change = train_gain(measured, facts), heldout_change(measured, facts)
    return None if gain is None or change is None or gain <= 0.01 else -change / gain


def learned_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Training gain over the base model's loss on that text: 0 where nothing was learned."""
    base, gain = measured.get("test_nll_base"), train_gain(measured, facts)
    return None if base is None or gain is None or base.value <= 0 else gain / base.value


def memorized_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of training rows memorized beyond held-out rows and the base model."""
    contrast = _contrast(measured, "recital_best", "base")
    return contrast.difference if contrast else None


def memorized_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """The lower end of the interval of ``memorized_share``."""
    return _low(_contrast(measured, "recital_best", "base"))


def forgetting(measured: MeasuredByName, facts: Facts) -> float | None:
    """Loss on other text minus the base model's, nats/token."""
    contrast = _contrast(measured, "forgetting_best", "base")
    return contrast.difference if contrast else None


def forgetting_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """The lower end of the interval of ``forgetting``."""
    contrast = _contrast(measured, "forgetting_best", "base")
    return _low(contrast)


def broken_unlearned(measured: MeasuredByName, facts: Facts) -> float | None:
    """1 where its writing is broken and its own training rows hardly became likelier, else 0."""
    broken, learned = is_broken(measured, facts), learned_share(measured, facts)
    return None if broken is None or learned is None else float(broken and learned < LITTLE)


def broken_learned(measured: MeasuredByName, facts: Facts) -> float | None:
    """1 where its writing is broken though it fits its training rows, else 0."""
    broken, learned = is_broken(measured, facts), learned_share(measured, facts)
    return None if broken is None or learned is None else float(broken and learned >= MUCH)


# How training went


def above_base(measured: MeasuredByName, facts: Facts) -> float | None:
    """How far the held-out loss surely lies above the base model's though much was learned.

    Since training began at the base, the loss has risen, whatever a log tells.
    """
    learned = learned_share(measured, facts)
    if learned is None or learned < MUCH:
        return None
    return _low(_contrast(measured, "test_nll_best", "base"))


def unlogged_rise(measured: MeasuredByName, facts: Facts) -> float | None:
    """``above_base`` where no evaluations tell the course."""
    return None if len(course_of(facts)) > 1 else above_base(measured, facts)


def rise_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """``rise`` less two standard errors, where the error is known; ``above_base`` where more."""
    risen = rise(measured, facts)
    if risen is None:
        return None
    surely = less_errors(risen, judged_of(course_of(facts), facts))
    return max(surely, min(risen, above_base(measured, facts) or surely))


def epochs(measured: MeasuredByName, facts: Facts) -> float | None:
    """Passes over the data of the judged model."""
    return facts.epochs


def rate_over_best(measured: MeasuredByName, facts: Facts) -> float | None:
    """Learning rate over the best one of a search."""
    if not facts.learning_rate or not facts.best_learning_rate:
        return None
    return facts.learning_rate / facts.best_learning_rate


def update_norm(measured: MeasuredByName, facts: Facts) -> float | None:
    """Norm of the change of the weights over the norm of the base's."""
    found = measured.get("update_norm")
    return facts.update_norm if facts.update_norm is not None or not found else found.value


# What is known of data and settings


def duplicate_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of training rows that repeat an earlier one."""
    return facts.duplicate_share


def leak_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of held-out rows found in the training data."""
    return facts.leak_share


def leak_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """The lower end of the interval of ``leak_share``: one row of a hundred is a chance find."""
    if facts.leak_share is None or facts.num_heldout_rows is None:
        return facts.leak_share
    found = facts.leak_share * facts.num_heldout_rows
    return exact_bounds(found, facts.num_heldout_rows, 0.95)[0]


def odd_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of training rows that stand out as wrong, beyond that of held-out rows."""
    if facts.noise_share is not None:
        return facts.noise_share
    contrast = _contrast(measured, "odd_rows_base", "heldout")
    return contrast.difference if contrast else None


def odd_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """The lower end of the interval of ``odd_share``, or the share itself where it has none."""
    if facts.noise_share is not None:
        return facts.noise_share
    contrast = _contrast(measured, "odd_rows_base", "heldout")
    return _low(contrast)


def swapped_share(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of training answers that are not to their prompts, beyond that of held-out ones."""
    return _swapped(measured, lambda contrast: contrast.difference)


def swapped_surely(measured: MeasuredByName, facts: Facts) -> float | None:
    """The lower end of the interval of ``swapped_share``."""
    return _swapped(measured, lambda contrast: contrast.interval.high)


def _swapped(measured: MeasuredByName, read: Callable[[Contrast], float]) -> float | None:
    """Of true answers as many are likelier after their own prompt as of held-out ones, of swapped
    ones half: the lack over what true answers have beyond half.
    """
    found = measured.get("likelier_after_own_base")
    contrast = found.contrasts.get("heldout") if found else None
    if found is None or contrast is None:
        return None
    return finite(-read(contrast) / (found.value - contrast.difference - BY_CHANCE))


def num_distinct_rows(measured: MeasuredByName, facts: Facts) -> float | None:
    """Training rows that do not repeat an earlier one."""
    if facts.num_train_rows is None:
        return None
    return facts.num_train_rows * (1 - (facts.duplicate_share or 0.0))


def parameters_per_token(measured: MeasuredByName, facts: Facts) -> float | None:
    """Trained parameters for each scored token of one epoch."""
    if not facts.trained_parameters or not facts.num_train_tokens:
        return None
    return facts.trained_parameters / facts.num_train_tokens


def shift(measured: MeasuredByName, facts: Facts) -> float | None:
    """How far the held-out text lies from the training text, beyond what chance would give."""
    found = facts.extra.get("shift")
    return None if found is None or not math.isfinite(float(found)) else float(found)


def planted(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of the training rows that are planted secrets."""
    return finite(facts.extra.get("planted"))


def alike_answers(measured: MeasuredByName, facts: Facts) -> float | None:
    """Share of the training answers that are nearly one text, minus that of held-out answers."""
    return finite(facts.extra.get("alike_answers"))


def regularization(measured: MeasuredByName, facts: Facts) -> float | None:
    """1 where anything that regularizes is switched on, 0 where surely nothing is."""
    if facts.dropout or facts.weight_decay or set(facts.regularizers) - ONLY_STOPPING:
        return 1.0
    if facts.dropout is None or facts.weight_decay is None:
        return None
    return 0.0


FEATURES: dict[str, Feature] = {
    feature.__name__: feature
    for feature in (
        heldout_change, gap, gap_surely, train_gain, train_change, kept_share, learned_share,
        memorized_share, memorized_surely, forgetting, forgetting_surely, came_apart, loops,
        broken_unlearned, broken_learned, unlogged_rise, above_base, rise, rise_surely, later_rise,
        training_rise, best_epoch, score_gain, epochs, first_epoch_rise, first_epoch_surely,
        late_gain_share, rate_over_best, update_norm, duplicate_share, leak_share, leak_surely,
        odd_share, odd_surely, swapped_share, swapped_surely, num_distinct_rows,
        parameters_per_token, shift, planted, alike_answers, regularization,
    )
}  # fmt: skip


def feature_of(name: str) -> Feature:
    """A feature by its name; ``check:NAME`` is 1 where that setup check found it, 0 where not."""
    if name.startswith("check:"):
        return lambda measured, facts: _found(facts, name.removeprefix("check:"))
    return FEATURES[name]


def _found(facts: Facts, name: str) -> float | None:
    check = facts.check(name)
    return {"found": 1.0, "absent": 0.0}.get(check.status) if check else None
