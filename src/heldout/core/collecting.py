"""How often Python searches all objects for unused ones that refer to one another.

While torch and transformers are imported it would search all of theirs again and again, and find
nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_usual: list[tuple[int, int, int]] = []  # thresholds, while they are raised
_SELDOM = 1_000  # searches of the young objects, before all are searched


@contextmanager
def seldom_searched() -> Iterator[None]:
    """Inside of the block only young objects are searched, until ``search_as_usual``."""
    _usual.append(gc.get_threshold())
    gc.set_threshold(*_usual[-1][:2], _SELDOM)
    try:
        yield
    finally:
        search_as_usual()


def search_as_usual() -> None:
    """Once there is a model: an unused one must not stay in memory."""
    if _usual:
        gc.set_threshold(*_usual.pop())
