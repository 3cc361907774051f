"""How long a whole job takes: what its parts were planned at, how far they are, what is left."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Of planned work, before the speed so far corrects what is left; and the farthest that it may.
_TELLING_SECONDS = 5.0
_MOST_CORRECTION = 4.0


@dataclass(frozen=True)
class JobPart:
    """A part of a job: planned ``seconds``, and ``units`` of work as ``Progress.advance`` counts.

    ``beside`` names the task that does it while the parts before and after it go on; "" where it
    has its own time. ``at_most``: it may end earlier.
    """

    name: str
    seconds: float
    units: int
    beside: str = ""
    at_most: bool = False

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "JobPart":
        return cls(
            str(entry["name"]),
            float(entry["seconds"]),
            int(entry["units"]),
            str(entry["beside"]),
            bool(entry["at_most"]),
        )


def seconds_of(parts: Sequence[JobPart], seconds: Sequence[float]) -> float:
    """Of a job whose parts take so long; one beside others takes what these do not cover."""
    both = list(zip(parts, seconds, strict=True))
    total = sum(each for part, each in both if not part.beside)
    for place, (part, each) in enumerate(both):
        if part.beside:
            around = [both[i] for i in (place - 1, place + 1) if 0 <= i < len(both)]
            total += max(0.0, each - sum(other for near, other in around if not near.beside))
    return total


class JobTime:
    """Where a job is. ``spent``: seconds before now; ``now`` is a clock of seconds."""

    def __init__(
        self,
        parts: Sequence[JobPart],
        spent: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ):
        self.parts = list(parts)
        self.now = now
        self.began = now() - spent
        self.current = ""
        self._done = {part.name: 0 for part in parts}
        self._ended: set[str] = set()
        self._left = seconds_of(parts, [part.seconds for part in parts])
        self._told = self.began

    def begin(self, name: str) -> None:
        """The part ``name`` begins; those before it that have time of their own have ended.

        What is no part of the job, as where nothing is searched, changes nothing.
        """
        if name not in self._done:
            return
        for part in self.parts:
            if part.name == name:
                break
            if not part.beside:
                self._ended.add(part.name)
        self.current = name
        self._tell()

    def advance(self, num: int, task: str = "") -> None:
        """``num`` more units are done, by ``task`` beside the job or by the job itself."""
        beside = [part.name for part in self.parts if part.beside and part.beside == task]
        name = beside[0] if beside else self.current
        if name in self._done and num:
            self._done[name] += num
            self._tell()

    @property
    def place(self) -> int:
        """Of the current part among all, from 1."""
        return 1 + next((i for i, part in enumerate(self.parts) if part.name == self.current), 0)

    @property
    def at_most(self) -> bool:
        """Whether it may end earlier than planned."""
        return any(part.at_most and part.name not in self._ended for part in self.parts)

    @property
    def left(self) -> float:
        """Seconds to the end of the job, corrected by the speed so far."""
        return max(1.0, self._left - (self.now() - self._told))

    @property
    def share(self) -> float:
        """Of the whole job's time, as it looks now."""
        spent = self.now() - self.began
        return spent / (spent + self.left)

    def _tell(self) -> None:
        left = [part.seconds * (1 - self._share(part)) for part in self.parts]
        self._told = self.now()
        self._left = seconds_of(self.parts, left) * self._correction()

    def _share(self, part: JobPart) -> float:
        return 1.0 if part.name in self._ended else self._done_share(part)

    def _done_share(self, part: JobPart) -> float:
        return min(1.0, self._done[part.name] / max(1, part.units))

    def _correction(self) -> float:
        done = sum(p.seconds * self._done_share(p) for p in self.parts if not p.beside)
        if done < _TELLING_SECONDS:
            return 1.0
        ratio = (self.now() - self.began) / done
        return min(_MOST_CORRECTION, max(1 / _MOST_CORRECTION, ratio))


def in_words(seconds: float) -> str:
    """``45 seconds``, ``12 minutes``, ``2 h 10 min``: as sure as an estimate is."""
    if seconds < 10:
        return "10 seconds"
    if seconds < 90:
        return f"{5 * math.ceil(seconds / 5)} seconds"
    if seconds < 100 * 60:
        return f"{math.ceil(seconds / 60)} minutes"
    hours, minutes = divmod(10 * math.ceil(seconds / 600), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


@dataclass(frozen=True)
class Estimate:
    """What a job takes here: its parts, and memory on the device that trains.

    ``is_timed``: some of its work was timed; else it is so little that it was only counted.
    """

    parts: tuple[JobPart, ...]
    gigabytes: float
    is_timed: bool

    @property
    def seconds(self) -> float:
        return seconds_of(self.parts, [part.seconds for part in self.parts])

    def of(self, name: str) -> float:
        """Seconds of the part ``name``, 0 without it."""
        return sum(part.seconds for part in self.parts if part.name == name)

    @property
    def words(self) -> str:
        """For people: time and memory, and what the time is made of."""
        gigabytes = f"{self.gigabytes:.1f}"
        if not self.is_timed:
            return f"less than a minute and {gigabytes} GB of memory"
        time = in_words(self.seconds)
        if any(part.at_most for part in self.parts):
            whole = f"at most {time} and {gigabytes} GB of memory"
        else:
            whole = f"about {time} and {gigabytes} GB of memory"
        return f"{whole}: {', '.join(map(_part_in_words, self.parts))}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Estimate":
        parts = tuple(JobPart.from_json(part) for part in entry["parts"])
        return cls(parts, float(entry["gigabytes"]), bool(entry["is_timed"]))


def _part_in_words(part: JobPart) -> str:
    words = f"{part.name} {in_words(part.seconds)}"
    return f"{words} (at the same time)" if part.beside else words
