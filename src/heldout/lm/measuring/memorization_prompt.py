"""A row up to the place from which it is to be continued word for word."""

from typing import Any

from heldout.core.row import Row
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.measuring.pass_statistics import SUFFIXES
from heldout.lm.tokenize import IGNORED, tokenize_row


def memorization_prompt(
    row: Row, tokenizer: Any, max_length: int, prefix_tokens: int = SUFFIXES["short"][0]
) -> tuple[list[int], str]:
    """Token ids up to ``prefix_tokens`` scored ones, or fewer, and the text that follows.

    The prompt ends with a whole character.
    """
    window = tokenize_row(row, tokenizer, max_length).windows[0]
    scored = [p for p, label in enumerate(window.labels) if label != IGNORED]
    start = scored[min(prefix_tokens, len(scored) - 1)]
    start = whole_cut(tokenizer, window.input_ids, start)
    return list(window.input_ids[:start]), decoded(tokenizer, window.input_ids[start:])
