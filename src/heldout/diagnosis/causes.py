"""From evidence to causes: weights of evidence, added up by rules that are data (causes.toml).

Impostors of overfitting come first: where one is named, no overfitting is claimed, unless the
training rows are recited, which no impostor explains. An impostor too small to explain what was
measured comes last and silences nothing.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Formatter
from typing import Literal

import numpy as np

from heldout.core.facts import Facts
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.verdict import Cause, Verdict
from heldout.diagnosis.features import FEATURES, MeasuredByName, feature_of

RECITED = 0.3  # of the training rows, surely and beyond controls: learned by heart whatever else
CauseKind = Literal["impostor", "overfitting", "other"]


@dataclass(frozen=True)
class Clue:
    """One feature: on which side of a bound it speaks for the rule, and how much either way.

    ``says_less`` is what is said where a figure that ``says`` names is not known.
    """

    feature: str
    weight_for: float
    weight_against: float = 0.0
    above: float | None = None
    below: float | None = None
    says: str = ""
    denies: str = ""
    says_less: str = ""

    def __post_init__(self) -> None:
        assert (self.above is None) != (self.below is None), f"{self.feature}: one bound, not two"

    def holds(self, value: float) -> bool:
        if self.above is not None:
            return value >= self.above
        assert self.below is not None
        return value < self.below


@dataclass(frozen=True)
class CauseRule:
    """What speaks for one cause; ``prior`` is the log-odds where nothing was measured.

    ``explains`` is what an impostor must hold to come first and silence others; None: it always is.
    ``light`` names the verdict that must be red, where what the cause says is no more than that.
    """

    name: str
    kind: CauseKind
    goals: tuple[str, ...]
    prior: float
    source: str
    test: str
    clues: tuple[Clue, ...]
    explains: Clue | None = None
    explains_recital: bool = False  # what is recited is what it consists in
    light: str = ""


@dataclass(frozen=True)
class CauseRules:
    """All rules, and the table from a sum of weights to a confidence."""

    rules: tuple[CauseRule, ...]
    scores: tuple[float, ...]
    shares: tuple[float, ...]

    def confidence(self, score: float) -> float:
        """On the line between two rows of the table, flat beyond its ends."""
        return float(np.interp(score, self.scores, self.shares))


@dataclass(frozen=True)
class Finding:
    """One rule at work: its sum of weights, and what was said for and against."""

    rule: CauseRule
    score: float
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...]


def find_causes(
    measurements: list[Measurement | NotMeasured] | tuple[Measurement | NotMeasured, ...],
    facts: Facts,
    lights: Mapping[str, Verdict] | None = None,
) -> tuple[Cause, ...]:
    """Causes, most likely first; empty where nothing speaks for one.

    Evidence that is missing adds nothing, so it lowers the confidence and is never a pass.
    """
    rules = read_rules()
    measured = _by_name(measurements)
    named = [finding for finding in findings(measurements, facts) if finding.score >= 0]
    if lights is not None:
        named = [f for f in named if not f.rule.light or lights[f.rule.light].color == "red"]
    places = {finding.rule.name: _place(finding.rule, measured, facts) for finding in named}
    recited = FEATURES["memorized_surely"](measured, facts) or 0.0
    if any(finding.rule.explains_recital for finding in named):
        recited = 0.0
    if _FIRST in places.values():
        named = [f for f in named if f.rule.kind != "overfitting" or recited >= RECITED]
    named.sort(key=lambda finding: (places[finding.rule.name], -finding.score))
    return tuple(
        Cause(
            finding.rule.name,
            rules.confidence(finding.score),
            finding.evidence_for,
            finding.evidence_against,
            finding.rule.test,
        )
        for finding in named
    )


_FIRST, _SECOND, _LAST = range(3)


def _place(rule: CauseRule, measured: MeasuredByName, facts: Facts) -> int:
    """Impostors that explain what was measured, then other causes, then impostors that do not."""
    if rule.kind != "impostor":
        return _SECOND
    if rule.explains is None:
        return _FIRST
    value = feature_of(rule.explains.feature)(measured, facts)
    return _FIRST if value is not None and rule.explains.holds(value) else _LAST


def findings(
    measurements: list[Measurement | NotMeasured] | tuple[Measurement | NotMeasured, ...],
    facts: Facts,
) -> list[Finding]:
    """Every rule that counts for the goal, with its sum, whether it names a cause or not."""
    measured = _by_name(measurements)
    return [weigh(rule, measured, facts) for rule in read_rules().rules if facts.goal in rule.goals]


def _by_name(
    measurements: list[Measurement | NotMeasured] | tuple[Measurement | NotMeasured, ...],
) -> MeasuredByName:
    return {m.name: m for m in measurements if isinstance(m, Measurement)}


def weigh(rule: CauseRule, measured: MeasuredByName, facts: Facts) -> Finding:
    """One rule's sum: its prior, and the weight of every clue that was measured."""
    score = rule.prior
    speaks_for: list[str] = []
    speaks_against: list[str] = []
    for clue in rule.clues:
        value = feature_of(clue.feature)(measured, facts)
        if value is None:
            continue
        holds = clue.holds(value)
        weight = clue.weight_for if holds else -clue.weight_against
        score += weight
        sentence = _sentence(clue, value, measured, facts)
        if sentence and weight:
            (speaks_for if weight > 0 else speaks_against).append(sentence)
    return Finding(rule, score, tuple(speaks_for), tuple(speaks_against))


def _sentence(clue: Clue, value: float, measured: MeasuredByName, facts: Facts) -> str:
    """The clue in words, with the figures that its template names; a check speaks for itself."""
    if clue.feature.startswith("check:"):
        check = facts.check(clue.feature.removeprefix("check:"))
        return check.evidence if check else ""
    for template in (clue.says, clue.says_less) if clue.holds(value) else (clue.denies,):
        named = {name for _, name, _, _ in Formatter().parse(template) if name} - {"value"}
        figures = {name: FEATURES[name](measured, facts) for name in named}
        if None not in figures.values():
            return template.format(value=value, **figures)
    return ""


@cache
def read_rules() -> CauseRules:
    """The rules as they are shipped."""
    source = resources.files("heldout") / "diagnosis" / "causes.toml"
    table = tomllib.loads(source.read_text(encoding="utf-8"))
    rules = tuple(
        CauseRule(
            entry["name"],
            entry["kind"],
            tuple(entry["goals"]),
            entry["prior"],
            entry["source"],
            entry["test"],
            tuple(
                Clue(
                    clue["feature"],
                    clue["for"],
                    clue.get("against", 0.0),
                    clue.get("above"),
                    clue.get("below"),
                    clue.get("says", ""),
                    clue.get("denies", ""),
                    clue.get("says_less", ""),
                )
                for clue in entry["evidence"]
            ),
            Clue(weight_for=0.0, **entry["explains"]) if "explains" in entry else None,
            entry.get("explains_recital", False),
            entry.get("light", ""),
        )
        for entry in table["rule"]
    )
    rows = table["confidence"]
    return CauseRules(
        rules, tuple(row["score"] for row in rows), tuple(row["share"] for row in rows)
    )
