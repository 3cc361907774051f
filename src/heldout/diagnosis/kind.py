"""What kind of run is this? From its history and a few probes, with what speaks for and against.

Loss curves alone tell little: a rising held-out loss is classical overfitting, the middle of a
double descent, grokking that has not come yet, or hyperfitting. So every kind needs evidence of
its own, and where that was not measured the answer says so. The kinds are data (kinds.toml).
"""

import operator
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from string import Formatter
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.facts import HistoryPoint
from heldout.diagnosis.course import Figures, figures_of

Name = Literal[
    "underfitting",
    "healthy",
    "memorized",
    "classical overfitting",
    "double descent",
    "grokking",
    "hyperfitting",
    "broken",
    "cannot tell",
]
Certainty = Literal["clear", "likely", "cannot tell"]


@dataclass(frozen=True)
class Kind:
    """The kind of a run, how sure that is, and why; ``missing`` is what would have told more."""

    name: Name
    confidence: Certainty
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Bound:
    """A threshold with its reason and where it comes from."""

    value: float
    unit: str
    reason: str
    source: str


_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
    "known": lambda value, bound: True,
}


@dataclass(frozen=True)
class Comparison:
    """A figure against a bound, times the figure ``of``; it fails where one is not known."""

    figure: str
    comparison: str
    bound: float
    of: str = ""

    def holds(self, figures: Figures) -> bool:
        if self.figure not in figures or (self.of and self.of not in figures):
            return False
        bound = self.bound * figures[self.of] if self.of else self.bound
        return _COMPARISONS[self.comparison](figures[self.figure], bound)


@dataclass(frozen=True)
class Premises:
    """``when`` must hold all, ``unless`` none."""

    when: tuple[Comparison, ...] = ()
    unless: tuple[Comparison, ...] = ()

    def hold(self, figures: Figures) -> bool:
        return all(one.holds(figures) for one in self.when) and not any(
            one.holds(figures) for one in self.unless
        )


@dataclass(frozen=True)
class Sentence:
    """A sentence with figures in it; None for ``against``: it never speaks against the kind."""

    premises: Premises
    says: str
    against: Premises | None

    def is_known(self, figures: Figures) -> bool:
        named = {name for _, name, _, _ in Formatter().parse(self.says) if name}
        return named <= figures.keys() and self.premises.hold(figures)

    def is_against(self, figures: Figures) -> bool:
        return self.against is not None and self.against.hold(figures)


@dataclass(frozen=True)
class FurtherMeasurement:
    """A measurement that tells more; one that is open leaves the kind likely at best."""

    premises: Premises
    figure: str  # known where it was measured
    missing: str  # said where it was not
    is_open: bool


@dataclass(frozen=True)
class KindRule:
    """One kind: when it is named, what is said for and against it, and what would tell more."""

    name: Name
    premises: Premises
    sentences: tuple[Sentence, ...]
    questions: tuple[FurtherMeasurement, ...]
    doubted: bool  # evidence against it makes it likely instead of clear


def kind_of_run(
    history: Sequence[HistoryPoint],
    *,
    memorized_share: float | None = None,
    losses_by_size: Sequence[tuple[float, float]] = (),
    worse_than_base: float | None = None,
) -> Kind:
    """Underfitting, healthy, memorized, overfitted, broken, double descent, grokking, hyperfitting.

    ``history`` goes up to the model that is judged, in any unit of loss. Of its ``extra`` values
    these are read: ``accuracy`` (held-out), ``training_accuracy``, ``ttr`` (type-token ratio of
    greedy continuations of held-out text) and ``weight_norm``. ``memorized_share`` is the share of
    training rows recited beyond held-out rows and the base model. ``losses_by_size`` holds (amount
    of training data, held-out loss after training to the end) for the same model.
    ``worse_than_base`` is by how much the loss on unseen text surely lies above the base model's.

    The bounds, with their reasons, are ``BOUNDS``. Pure arithmetic. Raises UserError for a value
    that is not a finite number, or steps that do not increase.
    """
    _refuse_unsound(history, memorized_share, losses_by_size)
    figures = figures_of(
        history,
        memorized_share,
        losses_by_size,
        swing=BOUNDS["swing"].value,
        fitted=BOUNDS["fitted"].value,
    )
    if worse_than_base is not None:
        figures["worse_than_base"] = worse_than_base
    rule = next(rule for rule in RULES if rule.premises.hold(figures))
    said = [one for one in rule.sentences if one.is_known(figures)]
    against = [one for one in said if one.is_against(figures)]
    missing = [
        one for one in rule.questions if one.premises.hold(figures) and one.figure not in figures
    ]
    confidence: Certainty = "clear"
    if rule.name == "cannot tell":
        confidence = "cannot tell"
    elif (against and rule.doubted) or any(one.is_open for one in missing):
        confidence = "likely"
    return Kind(
        rule.name,
        confidence,
        tuple(one.says.format(**figures) for one in said if not one.is_against(figures)),
        tuple(one.says.format(**figures) for one in against),
        tuple(one.missing for one in missing),
    )


def _refuse_unsound(
    history: Sequence[HistoryPoint],
    memorized_share: float | None,
    losses_by_size: Sequence[tuple[float, float]],
) -> None:
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
    others = [
        ("memorized_share", memorized_share),
        *(("losses_by_size", loss) for _, loss in losses_by_size),
    ]
    for name, value in others:
        if value is not None and not abs(value) < float("inf"):
            raise UserError(f"kind_of_run({name}=...) must be a finite number, got {value}.")


# Reading kinds.toml


def _comparison(entry: dict[str, Any], bounds: dict[str, Bound]) -> Comparison:
    (comparison,) = _COMPARISONS.keys() & entry.keys()
    bound = entry[comparison]
    value = bounds[bound].value if isinstance(bound, str) else float(bound)
    return Comparison(entry["figure"], comparison, value, entry.get("of", ""))


def _premises(entry: dict[str, Any], bounds: dict[str, Bound]) -> Premises:
    when = tuple(_comparison(one, bounds) for one in entry.get("when", ()))
    return Premises(when, tuple(_comparison(one, bounds) for one in entry.get("unless", ())))


def _sentence(entry: dict[str, Any], bounds: dict[str, Bound]) -> Sentence:
    against = entry.get("against")
    if against is True:
        against = []
    speaks_against = None if against is None else _premises({"when": against}, bounds)
    return Sentence(_premises(entry, bounds), entry["says"], speaks_against)


def _read() -> tuple[dict[str, Bound], tuple[KindRule, ...]]:
    source = resources.files("heldout") / "diagnosis" / "kinds.toml"
    table = tomllib.loads(source.read_text(encoding="utf-8"))
    bounds = {name: Bound(**entry) for name, entry in table["bounds"].items()}

    def question(entry: dict[str, Any]) -> FurtherMeasurement:
        measurement = table["measurements"][entry["measurement"]]
        return FurtherMeasurement(
            _premises(entry, bounds),
            measurement["figure"],
            measurement["missing"],
            entry.get("open", False),
        )

    rules = tuple(
        KindRule(
            entry["name"],
            _premises(entry, bounds),
            tuple(_sentence(one, bounds) for one in entry.get("evidence", ())),
            tuple(question(one) for one in entry.get("questions", ())),
            entry.get("doubted", True),
        )
        for entry in table["kind"]
    )
    return bounds, rules


BOUNDS, RULES = _read()
