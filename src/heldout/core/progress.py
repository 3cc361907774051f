"""How a job tells what it is doing; the command line draws it, a library caller may ignore it."""

from collections.abc import Iterator
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
