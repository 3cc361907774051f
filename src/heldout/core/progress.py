"""How a job tells what it is doing; the command line draws it, a library caller may ignore it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Silent by default; subclasses draw. ``total`` counts units of work of one stage."""

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


def advance_to(progress: Progress) -> Callable[[int], None]:
    """A callback that takes how many units of the stage are done so far, not how many more."""
    done = 0

    def advance(num: int) -> None:
        nonlocal done
        progress.advance(num - done)
        done = num

    return advance
