"""What a user did that cannot work, told in one line."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from heldout.core.spelling import as_spoken

# In a file's name, say: a terminal would obey them.
_NO_LETTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UserError(Exception):
    """Bad input: argument, rule, value and next step in one line; the command exits with code 2.

    Arguments are named as the caller spells them: flags on the command line, else Python's names.
    Our own bugs are assertions, never this.
    """

    def __init__(self, message: str):
        words = as_spoken(" ".join(str(message).split()))
        words = _NO_LETTERS.sub(lambda found: f"\\x{ord(found[0]):02x}", words)
        # An error of others that is quoted at the end brings a full stop of its own.
        super().__init__(re.sub(r"(?<=[\w)\"'`\]])\.\.(?=\s|$)", ".", words))


class TrainingDiverged(UserError):
    """The loss became infinite or not a number; the last good checkpoint is kept."""


class Interrupted(Exception):
    """The user asked to stop; what there is has been saved, in the folder ``run`` if in one.

    ``at_once``: asked twice, so that what came after the last checkpoint is lost.
    """

    run: Path | None = None
    at_once: bool = False

    def __init__(self, message: str = ""):
        super().__init__(*([as_spoken(message)] if message else []))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f": did you mean {near[0]!r}?" if near else f". Known: {', '.join(known)}."
