"""What the kept model of a run and its base answer to the same prompt."""

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "heldout.try/1"


@dataclass(frozen=True)
class CopiedText:
    """The longest stretch of an answer that stands word for word in a training row."""

    row: int  # index in the source, counted from 0
    num_tokens: int
    start: int  # characters of the answer
    stop: int


@dataclass(frozen=True)
class Written:
    """One model's answer; ``copied`` is None where no stretch is long enough to tell anything."""

    text: str
    num_tokens: int
    seconds: float
    ended: bool  # by itself, not by the limit
    copied: CopiedText | None = None

    @property
    def copied_text(self) -> str:
        return "" if self.copied is None else self.text[self.copied.start : self.copied.stop]


@dataclass(frozen=True)
class Answer:
    """Both answers; ``base`` is None where the run began with random weights."""

    prompt: str
    best: Written
    base: Written | None
    is_cut: bool = False  # the prompt was longer than the model reads: its beginning was left out

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def to_json(found: list[Answer]) -> dict[str, Any]:
    """``heldout.try/1``; see the shipped JSON Schema."""
    return {"schema": SCHEMA, "answers": [each.to_json() for each in found]}
