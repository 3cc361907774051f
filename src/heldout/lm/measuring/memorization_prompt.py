"""A row up to the place from which it is to be continued word for word."""

from typing import Any

from heldout.core.graphemes import boundary_before
from heldout.core.row import Row
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.measuring.pass_statistics import SUFFIXES
from heldout.lm.tokenize import IGNORED, tokenize_row


def memorization_prompt(
    row: Row, tokenizer: Any, max_length: int, prefix_tokens: int = SUFFIXES["short"][0]
) -> tuple[list[int], str]:
    """Token ids up to ``prefix_tokens`` scored ones, or fewer, and the text that follows.

    Both end with a whole character.
    """
    windows = tokenize_row(row, tokenizer, max_length).windows
    ids, labels = windows[0].input_ids, windows[0].labels
    scored = [p for p, label in enumerate(labels) if label != IGNORED]
    start = whole_cut(tokenizer, ids, scored[min(prefix_tokens, len(scored) - 1)])
    rest = decoded(tokenizer, ids[start:])
    if len(windows) > 1:  # the last character may go on
        rest = rest[: boundary_before(rest, len(rest) - 1)]
    return list(ids[:start]), rest
