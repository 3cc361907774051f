"""The text of a row's suffix, and what of it has the form of personal data."""

from typing import Any

from heldout.core.row import Row
from heldout.data.quality import examine
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.tokenize import IGNORED, tokenize_row


def prefix_and_suffix(
    row: Row, tokenizer: Any, prefix_tokens: int, suffix_tokens: int
) -> tuple[str, str]:
    """The scored text up to the suffix, and the suffix, both up to their last whole characters."""
    windows = tokenize_row(row, tokenizer, 1 << 30).windows
    ids = [token for token in windows[0].labels if token != IGNORED]
    middle = whole_cut(tokenizer, ids, prefix_tokens)
    stop = whole_cut(tokenizer, ids, prefix_tokens + suffix_tokens)
    return decoded(tokenizer, ids[:middle]), decoded(tokenizer, ids[middle:stop])


def kinds_of_personal_data(text: str) -> tuple[str, ...]:
    """Names of the kinds that the text holds, in alphabetical order."""
    return tuple(sorted({each.what for each in examine(text) if each.kind == "personal"}))
