"""The six lights: what a run is judged by, each on one contrast that was fixed beforehand."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

VERDICTS = ("fit", "quality", "memorization", "forgetting", "leakage", "confidence")
Color = Literal["green", "yellow", "red", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """One verdict: its color, one sentence, and the names of the measurements behind it."""

    light: Color
    sentence: str
    measurements: tuple[str, ...] = ()


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
    """All lights, one sentence for a manager, and the causes, most likely first."""

    headline: str
    verdicts: dict[str, Verdict]
    causes: tuple[Cause, ...] = field(default=())

    def __post_init__(self) -> None:
        assert tuple(self.verdicts) == VERDICTS, f"six lights in order, got {tuple(self.verdicts)}"

    def to_json(self) -> dict[str, Any]:
        return {"schema": "heldout.verdict/1", **asdict(self)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Verdicts":
        return cls(
            entry["headline"],
            {
                name: Verdict(light["light"], light["sentence"], tuple(light["measurements"]))
                for name, light in entry["verdicts"].items()
            },
            tuple(Cause(**cause) for cause in entry["causes"]),
        )
