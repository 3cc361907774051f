"""What kind of run is this? From its history and a few probes, with what speaks for and against.

Loss curves alone tell little: a rising held-out loss is classical overfitting, the middle of a
double descent, grokking that has not come yet, or hyperfitting. So every kind needs evidence of
its own, and where that was not measured the answer says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from heldout.core.errors import UserError
from heldout.core.facts import HistoryPoint

Name = Literal[
    "underfitting",
    "healthy",
    "memorized",
    "classical overfitting",
    "double descent",
    "grokking",
    "hyperfitting",
    "cannot tell",
]
Confidence = Literal["clear", "likely", "cannot tell"]


@dataclass(frozen=True)
class Bound:
    """A threshold with its reason and where it comes from."""

    value: float
    unit: str
    reason: str
    source: str


BOUNDS = {
    "swing": Bound(
        0.02,
        "of the lowest held-out loss",
        "a smaller rise or fall of the held-out loss is not called one",
        "evaluations on the same text differ by under 1 % from one to the next in our runs; the "
        "smallest true swing among them is 4.8 % (experiments/double_descent)",
    ),
    "second_descent": Bound(
        0.5,
        "of the rise before it",
        "less is noise on the way up, or a rollback",
        "experiments/double_descent: the second descent is larger than the rise in every seed",
    ),
    "size_peak": Bound(
        1.2,
        "times the loss with less and with more data",
        "a learning curve that is no double descent does not rise at all",
        "experiments/double_descent: 33 times and more without a penalty, 1.1 at most with one",
    ),
    "fitted": Bound(
        0.05,
        "of the training loss at the start",
        "the training text counts as fitted; an accuracy of .95 counts too",
        "experiments/grokking: accuracy .99 and more wherever the loss is below it",
    ),
    "late": Bound(
        3.0,
        "times the step at which the training text is fitted",
        "grokking is generalization long after fitting; in ordinary training both come together",
        "Power et al. 2022 (arXiv 2201.02177); experiments/grokking",
    ),
    "late_rise": Bound(
        0.3,
        "of held-out accuracy, after the training text is fitted",
        "grokking goes from near chance to nearly all; fine-tuning past its best only loses",
        "Power et al. 2022 (arXiv 2201.02177); experiments/grokking",
    ),
    "near_zero": Bound(
        0.2,
        "of the training loss at the start",
        "hyperfitting gains nearly all of its diversity by there",
        "SmolLM2-135M after arXiv 2412.04318: diversity rises until 3.86 nats are down to .60",
    ),
    "ttr_rise": Bound(
        0.2,
        "of the type-token ratio of greedy text",
        "early stopping gains less and keeps repeating itself",
        "SmolLM2-135M: .12 at the start, .28 at the best held-out loss, .59 hyperfitted",
    ),
    "recital": Bound(
        0.05,
        "of the training rows, beyond held-out rows and the base model",
        "the share that turns the memorization light red",
        "heldout.diagnosis.verdicts",
    ),
    "gap": Bound(
        0.25,
        "of the held-out loss",
        "training text this much easier than unseen text casts doubt on a healthy run",
        "planted runs: 10 % at the lowest held-out loss, 99 % when overfitted, under 0 in control",
    ),
    "small_gap": Bound(
        0.1,
        "of the held-out loss",
        "an underfitted model finds training text hardly easier than unseen text",
        "planted runs: 10 % at the lowest held-out loss, under 0 when underfitted",
    ),
    "still_falling": Bound(
        0.1,
        "of the whole fall, within the last third of the steps",
        "more training would have helped; a straight line has a third, a finished run next to none",
        "the embedded model on World Factbook answers: 1 % at its lowest held-out loss",
    ),
}


@dataclass(frozen=True)
class Kind:
    """The kind of a run, how sure that is, and why; ``missing`` is what would have told more."""

    name: Name
    confidence: Confidence
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...]
    missing: tuple[str, ...]


def kind_of_run(
    history: Sequence[HistoryPoint],
    *,
    recital: float | None = None,
    losses_by_size: Sequence[tuple[float, float]] = (),
) -> Kind:
    """Underfitting, healthy, memorized, overfitting, double descent, grokking or hyperfitting.

    ``history`` goes up to the model that is judged, in any unit of loss. Of its ``extra`` values
    these are read: ``accuracy`` (held-out), ``training_accuracy``, ``ttr`` (type-token ratio of
    greedy continuations of held-out text) and ``weight_norm``. ``recital`` is the share of training
    rows recited beyond held-out rows and the base model. ``losses_by_size`` holds (amount of
    training data, held-out loss after training to the end) for the same model.

    The bounds, with their reasons, are ``BOUNDS``. Pure arithmetic. Raises UserError for a value
    that is not a finite number, or steps that do not increase.
    """
    _refuse_unsound(history, recital, losses_by_size)
    by_size = _double_descent_in_data(losses_by_size)
    if by_size is not None:
        return by_size
    course = [point for point in history if point.validation_nll is not None]
    if len(course) < 2:
        return _without_course(recital)
    readings = _Readings(course, recital)
    for decide in (
        _grokking,
        _double_descent,
        _hyperfitting,
        _classical_overfitting,
        _memorized,
        _underfitting,
        _healthy,
    ):
        found = decide(readings)
        if found is not None:
            return found
    return Kind(
        "cannot tell",
        "cannot tell",
        (),
        ("No kind fits: the held-out loss neither rose nor stayed at its lowest.",),
        readings.missing("ttr", "accuracy", "recital"),
    )


class _Readings:
    """Numbers that several kinds look at."""

    def __init__(self, course: Sequence[HistoryPoint], recital: float | None):
        self.course = course
        self.recital = recital
        self.steps = [float(point.step) for point in course]
        self.losses = [_value(point.validation_nll) for point in course]
        self.low = min(self.losses)
        self.start, self.end = self.losses[0], self.losses[-1]
        training = [p.train_nll for p in course if p.train_nll is not None]
        self.training_start = training[0] if len(training) > 1 else None
        self.training_end = training[-1] if len(training) > 1 else None
        self.rise = self.end - self.low
        self.peak = self._peak()

    def column(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of an extra value, where it was measured."""
        return [(float(p.step), p.extra[name]) for p in self.course if name in p.extra]

    def training_share(self, index: int = -1) -> float | None:
        """Training loss at an evaluation, as a share of that at the start."""
        loss = self.course[index].train_nll
        return None if loss is None or not self.training_start else loss / self.training_start

    @property
    def gap_share(self) -> float | None:
        """Held-out minus training loss at the end, over the held-out loss."""
        return None if self.training_end is None else (self.end - self.training_end) / self.end

    @property
    def has_risen(self) -> bool:
        """Whether the held-out loss surely ended above its lowest."""
        error = self.course[-1].validation_error
        return self.rise >= BOUNDS["swing"].value * self.low and (
            error is None or self.rise > 2 * error
        )

    @property
    def ttr_rise(self) -> float | None:
        diversity = self.column("ttr")
        return diversity[-1][1] - diversity[0][1] if len(diversity) > 1 else None

    def fitted_at(self) -> float | None:
        """The first step at which the training text counts as fitted."""
        accuracies = dict(self.column("training_accuracy"))
        for index, step in enumerate(self.steps):
            share = self.training_share(index)
            if accuracies.get(step, 0.0) >= 0.95 or (
                share is not None and share <= BOUNDS["fitted"].value
            ):
                return step
        return None

    def missing(self, *names: str) -> tuple[str, ...]:
        """Sentences for what was not measured and would help."""
        sentences = {
            "ttr": "How diverse greedy text is was not measured on the way.",
            "accuracy": "Held-out accuracy was not measured on the way.",
            "recital": "Whether training text is recited was not measured.",
            "training": "The training loss was not measured.",
        }
        known = {
            "ttr": self.ttr_rise is not None,
            "accuracy": len(self.column("accuracy")) > 1,
            "recital": self.recital is not None,
            "training": self.training_end is not None,
        }
        return tuple(sentences[name] for name in names if not known[name])

    def _peak(self) -> tuple[int, float, float] | None:
        """Index of the peak between two descents, its rise and its fall; None without one.

        Two neighboring evaluations must lie high: a single one is noise, or was rolled back.
        """
        found, best = None, 0.0
        for index in range(1, len(self.losses) - 1):
            rise = self.losses[index] - min(self.losses[:index])
            fall = self.losses[index] - min(self.losses[index + 1 :])
            if min(rise, fall) > best:
                found, best = (index, rise, fall), min(rise, fall)
        if found is None:
            return None
        index, rise, fall = found
        trough = self.losses[index] - rise
        beside = max(self.losses[index - 1], self.losses[index + 1])
        if rise < BOUNDS["swing"].value * trough or beside < trough + rise / 2:
            return None
        return found


def _grokking(readings: _Readings) -> Kind | None:
    fitted = readings.fitted_at()
    if fitted is None:
        return None
    accuracy = [(step, value) for step, value in readings.column("accuracy") if step >= fitted]
    missing = readings.missing("accuracy")
    if missing:
        return _grokking_by_loss(readings, fitted, missing)
    first, last = accuracy[0][1], accuracy[-1][1]
    if last - first < BOUNDS["late_rise"].value:
        return None
    halfway = next(step for step, value in accuracy if value >= (first + last) / 2)
    if halfway < BOUNDS["late"].value * max(fitted, 1.0):
        return None
    evidence = [
        f"The training text was fitted at step {fitted:g}, at a held-out accuracy of {first:.2f}.",
        f"Held-out accuracy rose to {last:.2f} only then, halfway at step {halfway:g}, "
        f"{halfway / max(fitted, 1.0):.0f} times later.",
    ]
    against: list[str] = []
    norms = readings.column("weight_norm")
    if len(norms) > 1:
        highest = max(value for _, value in norms)
        sentence = f"The weight norm went from {highest:.3g} at its highest to {norms[-1][1]:.3g}."
        (evidence if norms[-1][1] < 0.9 * highest else against).append(sentence)
    if last < 0.9:
        against.append(f"It is not complete: held-out accuracy has come to {last:.2f} so far.")
    return Kind("grokking", "likely" if against else "clear", tuple(evidence), tuple(against), ())


def _grokking_by_loss(readings: _Readings, fitted: float, missing) -> Kind | None:
    if readings.peak is None:
        return None
    index, _, _ = readings.peak
    if readings.steps[index] < fitted or readings.end > 0.5 * readings.start:
        return None
    return Kind(
        "grokking",
        "likely",
        (
            f"The training text was fitted at step {fitted:g}.",
            f"The held-out loss peaked at {readings.losses[index]:.3g} after that and ended at "
            f"{readings.end:.3g}, under half of where it began ({readings.start:.3g}).",
        ),
        ("A second descent of the loss alone may also be double descent.",),
        missing,
    )


def _double_descent(readings: _Readings) -> Kind | None:
    if readings.peak is None:
        return None
    index, rise, fall = readings.peak
    if fall < BOUNDS["second_descent"].value * rise:
        return None
    trough, peak = readings.losses[index] - rise, readings.losses[index]
    low_again = min(readings.losses[index:])
    against: list[str] = []
    if low_again > trough:
        against.append(f"The second low lies above the first ({low_again:.3g}, {trough:.3g}).")
    if readings.end - low_again >= BOUNDS["swing"].value * low_again:
        against.append(f"The held-out loss has risen once more since, to {readings.end:.3g}.")
    return Kind(
        "double descent",
        "likely" if against or readings.missing("accuracy") else "clear",
        (
            f"The held-out loss fell to {trough:.3g}, rose to {peak:.3g} by step "
            f"{readings.steps[index]:g}, and fell again to {low_again:.3g}.",
            "Held-out accuracy did not jump from near chance, as it does in grokking."
            if not readings.missing("accuracy")
            else "The fall is too small for grokking.",
        ),
        tuple(against),
        readings.missing("accuracy"),
    )


def _double_descent_in_data(losses_by_size: Sequence[tuple[float, float]]) -> Kind | None:
    ordered = sorted(losses_by_size)
    found = None
    for index in range(1, len(ordered) - 1):
        size, loss = ordered[index]
        less = min(other for _, other in ordered[:index])
        more = min(other for _, other in ordered[index + 1 :])
        factor = loss / max(less, more)
        if factor >= BOUNDS["size_peak"].value and (found is None or factor > found[0]):
            found = (factor, size, loss, less, more)
    if found is None:
        return None
    _, size, loss, less, more = found
    return Kind(
        "double descent",
        "clear",
        (
            f"At {size:g} of training data the held-out loss is {loss:.3g}: with less data it is "
            f"as low as {less:.3g}, with more {more:.3g}.",
        ),
        (),
        (),
    )


def _hyperfitting(readings: _Readings) -> Kind | None:
    ttr_rise, share = readings.ttr_rise, readings.training_share()
    if ttr_rise is None or share is None or not readings.has_risen:
        return None
    if share > BOUNDS["near_zero"].value or ttr_rise < BOUNDS["ttr_rise"].value:
        return None
    diversity = readings.column("ttr")
    evidence = [
        f"The training loss is down to {share:.0%} of its start.",
        f"The held-out loss has risen from {readings.low:.3g} to {readings.end:.3g}.",
        f"Greedy text has become more diverse all the same: type-token ratio {diversity[0][1]:.2f} "
        f"to {diversity[-1][1]:.2f}.",
    ]
    against: list[str] = []
    accuracy = readings.column("accuracy")
    if len(accuracy) > 1:
        fell = accuracy[-1][1] < max(value for _, value in accuracy)
        sentence = f"Held-out accuracy went from {accuracy[0][1]:.3f} to {accuracy[-1][1]:.3f}."
        (evidence if fell else against).append(sentence)
    if readings.recital is not None and readings.recital >= BOUNDS["recital"].value:
        against.append(
            f"It also recites {readings.recital:.0%} of the training rows beyond the controls."
        )
    return Kind(
        "hyperfitting",
        "likely" if against else "clear",
        tuple(evidence),
        tuple(against),
        readings.missing("accuracy", "recital"),
    )


def _classical_overfitting(readings: _Readings) -> Kind | None:
    if not readings.has_risen:
        return None
    lowest_at = readings.steps[readings.losses.index(readings.low)]
    evidence = [
        f"The held-out loss was lowest at step {lowest_at:g} ({readings.low:.3g}) and has risen to "
        f"{readings.end:.3g}."
    ]
    against: list[str] = []
    share = readings.training_share()
    if share is not None and readings.training_end is not None:
        evidence.append(f"The training loss is down to {share:.0%} of its start.")
    if readings.recital is not None:
        sentence = f"It recites {readings.recital:.0%} of the training rows beyond the controls."
        recites = readings.recital >= BOUNDS["recital"].value
        (evidence if recites else against).append(sentence)
    ttr_rise = readings.ttr_rise
    if ttr_rise is not None:
        sentence = f"The type-token ratio of greedy text changed by {ttr_rise:+.2f}."
        (evidence if ttr_rise < BOUNDS["ttr_rise"].value else against).append(sentence)
    open_questions = readings.missing("training")
    if share is not None and share <= BOUNDS["near_zero"].value:
        # Only here can it be hyperfitting, or a second descent or grokking still to come.
        open_questions += readings.missing("ttr", "accuracy")
    return Kind(
        "classical overfitting",
        "likely" if open_questions else "clear",
        tuple(evidence),
        tuple(against),
        open_questions + readings.missing("recital"),
    )


def _memorized(readings: _Readings) -> Kind | None:
    if readings.recital is None or readings.recital < BOUNDS["recital"].value:
        return None
    evidence = [
        f"It recites {readings.recital:.0%} of the training rows beyond the controls.",
        f"The held-out loss is at or near its lowest ({readings.end:.3g}, {readings.low:.3g}).",
    ]
    gap = readings.gap_share
    if gap is not None:
        evidence.append(f"Training text is {gap:.0%} easier than unseen text.")
    return Kind("memorized", "clear", tuple(evidence), (), readings.missing("training"))


def _underfitting(readings: _Readings) -> Kind | None:
    if len(readings.course) < 3:
        return None
    gap, fall = readings.gap_share, readings.start - readings.end
    if gap is not None and gap > BOUNDS["small_gap"].value:
        return None
    evidence = []
    late = _late_share(readings)
    if fall < BOUNDS["swing"].value * readings.start:
        evidence.append(
            f"The held-out loss has hardly moved: {readings.start:.3g} to {readings.end:.3g}."
        )
        share = readings.training_share()
        if share is None or share < 1 - BOUNDS["swing"].value:
            return None  # it learned something, only not this
        evidence.append(f"Neither has the training loss: {share:.0%} of its start.")
    elif late >= BOUNDS["still_falling"].value:
        evidence.append(f"{late:.0%} of the fall of the held-out loss came in the last third.")
    else:
        return None
    if gap is not None:
        evidence.append(f"Training text is only {gap:.0%} easier than unseen text.")
    missing = readings.missing("training")
    return Kind(
        "underfitting",
        "likely" if missing else "clear",
        tuple(evidence),
        (),
        missing + readings.missing("recital"),
    )


def _healthy(readings: _Readings) -> Kind | None:
    if len(readings.course) < 3:
        return Kind(
            "cannot tell",
            "cannot tell",
            (),
            ("Two evaluations do not show whether the held-out loss was still falling.",),
            readings.missing("training", "recital"),
        )
    fall = readings.start - readings.low
    if fall < BOUNDS["swing"].value * readings.start:
        return None
    evidence = [
        f"The held-out loss fell from {readings.start:.3g} to {readings.end:.3g} and is at or near "
        "its lowest.",
    ]
    against: list[str] = []
    gap = readings.gap_share
    if gap is not None:
        sentence = f"Training text is {gap:.0%} easier than unseen text."
        (against if gap > BOUNDS["gap"].value else evidence).append(sentence)
    late = _late_share(readings)
    if late >= BOUNDS["still_falling"].value:
        against.append(f"{late:.0%} of the fall of the held-out loss came in the last third.")
    if readings.recital is not None:
        evidence.append(f"It recites {readings.recital:.0%} of the training rows beyond controls.")
    missing = readings.missing("training", "recital")
    return Kind(
        "healthy",
        "likely" if against or missing else "clear",
        tuple(evidence),
        tuple(against),
        missing,
    )


def _without_course(recital: float | None) -> Kind:
    missing = ("No two evaluations of the held-out loss on the way.",)
    if recital is not None and recital >= BOUNDS["recital"].value:
        return Kind(
            "memorized",
            "likely",
            (f"It recites {recital:.0%} of the training rows beyond the controls.",),
            ("It may be overfitted too.",),
            missing,
        )
    return Kind("cannot tell", "cannot tell", (), (), missing)


def _late_share(readings: _Readings) -> float:
    """Share of the whole fall of the held-out loss that came in the last third of the steps."""
    total = readings.start - readings.end
    wanted = readings.steps[0] + (readings.steps[-1] - readings.steps[0]) * 2 / 3
    pairs = zip(readings.steps, readings.losses, strict=True)
    before_step, before = readings.steps[0], readings.start
    at_wanted = readings.start
    for step, loss in pairs:
        if step >= wanted:
            share = (wanted - before_step) / ((step - before_step) or 1.0)
            at_wanted = before + share * (loss - before)
            break
        before_step, before = step, loss
    return (at_wanted - readings.end) / total if total > 0 else 0.0


def _refuse_unsound(history, recital, losses_by_size) -> None:
    steps = [point.step for point in history]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise UserError("kind_of_run(history=...): steps must increase; sort the evaluations.")
    for point in history:
        values = {"train_nll": point.train_nll, "validation_nll": point.validation_nll}
        for name, value in {**values, **point.extra}.items():
            if value is not None and not abs(value) < float("inf"):
                raise UserError(
                    f"kind_of_run(history=...): {name} at step {point.step} is {value}, no finite "
                    "number: that training failed, and is of no kind."
                )
    others = [("recital", recital), *(("losses_by_size", loss) for _, loss in losses_by_size)]
    for name, value in others:
        if value is not None and not abs(value) < float("inf"):
            raise UserError(f"kind_of_run({name}=...) must be a finite number, got {value}.")


def _value(number: float | None) -> float:
    assert number is not None
    return number
