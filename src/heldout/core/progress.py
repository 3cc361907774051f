"""How a job tells what it is doing; the command line draws it, a library caller may ignore it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from heldout.core.job_time import JobPart
from heldout.core.language import say


class Progress:
    """Silent by default; subclasses draw. ``total`` counts units of work of one stage."""

    def job(self, parts: Sequence[JobPart], spent: float = 0.0) -> None:
        """All parts of the job, in their order; what follows is told as a share of all of it.

        ``spent``: seconds that it has taken before. Without parts the job is over.
        """

    def part(self, name: str) -> None:
        """The part ``name`` of the job begins."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Work until the end of the block belongs to ``name``."""
        yield

    def advance(self, num: int = 1, text: str = "") -> None:
        """``num`` more units are done; ``text`` is a short figure to show, such as the loss."""

    def note(self, text: str) -> None:
        """One line that stays."""

    def beside(self, name: str) -> "Progress":
        """Of work that goes on beside this one, and calls it from another thread."""
        return Progress()


class Lines(Progress):
    """A line for each stage that is another than the one before, as a notebook shows it."""

    def __init__(self) -> None:
        self.last = ""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        if name != self.last:
            print(f"{say(name)} ...", flush=True)
        self.last = name
        yield

    def note(self, text: str) -> None:
        print(say(text), flush=True)


def told(progress: Progress | None) -> Progress:
    """What the caller gave, else lines in a notebook, else silence."""
    return progress or (Lines() if "ipykernel" in sys.modules else Progress())


def advance_to(progress: Progress) -> Callable[[int], None]:
    """A callback that takes how many units of the stage are done so far, not how many more."""
    done = 0

    def advance(num: int) -> None:
        nonlocal done
        progress.advance(num - done)
        done = num

    return advance
