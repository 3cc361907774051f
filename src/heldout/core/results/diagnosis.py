"""What ``heldout diagnose`` found, typed; everything on its page and in its JSON is here."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from heldout.core.facts import Facts, HistoryPoint, SetupFault
from heldout.core.measurement import Measurement, NotMeasured, measurement_from_json
from heldout.core.shown import Shown
from heldout.core.verdict import Verdicts

SCHEMA = "heldout.diagnosis/2"


@dataclass(frozen=True)
class Remedy:
    """One change that is worth trying, with its setting in this tool and in others."""

    name: str
    cause: str
    why: str
    settings: dict[str, str]  # trainer -> exact setting; "heldout" is this tool
    effect: str = ""  # measured or published, with its source


@dataclass(frozen=True)
class MemorizedRow:
    """A training row that the model continues word for word."""

    row: int
    where: str
    prefix: str
    suffix: str
    probability: float  # of the whole suffix, 0 to 1
    copies: int = 1  # how often the row stands in the training data, nearly the same included
    personal: tuple[str, ...] = ()  # kinds of personal data in what is recited


@dataclass(frozen=True)
class SideBySide:
    """What the models write after one prompt, beside what the document goes on with."""

    part: str
    prompt: str
    reference: str
    best: str
    base: str | None = None
    copied: tuple[int, int] | None = None  # characters of ``best`` that stand in training
    source_row: int | None = None  # the training row they come from


@dataclass(frozen=True)
class Diagnosis(Shown):
    """Measurements, verdict, causes with remedies, and what to look at."""

    target: str
    base: str | None
    goal: str
    measurements: list[Measurement | NotMeasured]
    verdict: Verdicts
    facts: Facts
    remedies: list[Remedy] = field(default_factory=list)
    recited: list[MemorizedRow] = field(default_factory=list)
    samples: list[SideBySide] = field(default_factory=list)
    reliability: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    kind: dict[str, Any] = field(default_factory=dict)  # of run, with its evidence
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def table_rows(self) -> Iterable[Any]:
        """The measurements."""
        return self.measurements

    def to_json(self) -> dict[str, Any]:
        """``heldout.diagnosis/2``; see the shipped JSON Schema."""
        return {
            "schema": SCHEMA,
            **asdict(self),
            "measurements": [measured.to_json() for measured in self.measurements],
            "verdict": self.verdict.to_json(),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Diagnosis":
        """Inverse of ``to_json``; reads version 1 as well."""
        kept = {name: value for name, value in entry.items() if name != "schema"}
        facts = dict(entry["facts"])
        facts["history"] = tuple(HistoryPoint(**point) for point in facts["history"])
        facts["checks"] = tuple(SetupFault(**check) for check in facts["checks"])
        facts["regularizers"] = tuple(facts["regularizers"])
        kept["facts"] = Facts(**facts)
        kept["measurements"] = [measurement_from_json(each) for each in entry["measurements"]]
        kept["verdict"] = Verdicts.from_json(entry["verdict"])
        kept["remedies"] = [Remedy(**each) for each in entry["remedies"]]
        kept["recited"] = [
            MemorizedRow(**{**each, "personal": tuple(each["personal"])})
            for each in entry["recited"]
        ]
        kept["samples"] = [
            SideBySide(**{**each, "copied": each["copied"] and tuple(each["copied"])})
            for each in entry["samples"]
        ]
        kept["reliability"] = {
            name: [tuple(point) for point in points]
            for name, points in entry["reliability"].items()
        }
        return cls(**kept)
