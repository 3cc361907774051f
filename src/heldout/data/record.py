"""One row as it stands in a file, and what can be wrong with it."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

FaultKind = Literal["encoding", "not_json", "format", "empty", "truncated"]


class Record(NamedTuple):
    """One row as it stands in its source."""

    fields: dict[str, Any]
    where: str  # as in "data/train.jsonl line 37": how errors name it
    file: str = ""  # name inside the folder that was read; empty for a single file


@dataclass(frozen=True)
class Fault:
    """A row that cannot be trained on, and why."""

    kind: FaultKind
    message: str
    next_step: str = ""  # a sentence


Read = tuple[Record, Fault | None]  # where there is a fault, the record has no fields


class Broken(Exception):
    """What was read cannot be told apart from here on; ``line`` where that is known."""

    def __init__(self, kind: FaultKind, message: str, line: int = 0, next_step: str = ""):
        super().__init__(message)
        self.fault = Fault(kind, message, next_step)
        self.line = line


def type_words(value: Any) -> str:
    """What a JSON value is, in words for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kinds, words in ((str, "a string"), (list, "a list"), (dict, "an object")):
        if isinstance(value, kinds):
            return words
    return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
