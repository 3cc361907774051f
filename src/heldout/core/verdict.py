"""The seven verdicts on a run, each on one contrast that was fixed beforehand."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

VERDICTS = (
    "fit",
    "quality",
    "generation",
    "memorization",
    "forgetting",
    "leakage",
    "confidence",
)
SCHEMA = "heldout.verdict/2"
LATER = "Not judged by the version that wrote this: run heldout diagnose again."
Color = Literal["green", "yellow", "red", "unknown"]
COLORS: tuple[Color, ...] = get_args(Color)  # by number for trackers, from 0


@dataclass(frozen=True)
class Verdict:
    """One verdict: its color, one sentence, and the names of the measurements behind it."""

    color: Color
    sentence: str
    measurements: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The color stands under ``light``."""
        return {
            "light": self.color,
            "sentence": self.sentence,
            "measurements": self.measurements,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Verdict":
        """Inverse of ``to_json``."""
        return cls(entry["light"], entry["sentence"], tuple(entry["measurements"]))


@dataclass(frozen=True)
class Cause:
    """Why, with what speaks for and against it and the experiment that would tell."""

    name: str
    confidence: float
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...]
    test: str


@dataclass(frozen=True)
class Verdicts:
    """All verdicts, one sentence for a manager, and the causes, most likely first."""

    headline: str
    verdicts: dict[str, Verdict]
    causes: tuple[Cause, ...] = field(default=())

    def __post_init__(self) -> None:
        assert tuple(self.verdicts) == VERDICTS, (
            f"seven verdicts in order, got {tuple(self.verdicts)}"
        )

    def to_json(self) -> dict[str, Any]:
        """``heldout.verdict/2``; see the shipped JSON Schema."""
        return {
            "schema": SCHEMA,
            "headline": self.headline,
            "verdicts": {name: verdict.to_json() for name, verdict in self.verdicts.items()},
            "causes": tuple(asdict(cause) for cause in self.causes),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Verdicts":
        """Inverse of ``to_json``; version 1 has no verdict on generation, which is unknown then."""
        kept = {name: Verdict.from_json(each) for name, each in entry["verdicts"].items()}
        kept.setdefault("generation", Verdict("unknown", LATER))
        return cls(
            entry["headline"],
            {name: kept[name] for name in VERDICTS},
            tuple(Cause(**cause) for cause in entry["causes"]),
        )
