"""Tokens and whole characters: where to cut, what to show, and how much a token holds.

Tokenizers of bytes end tokens inside of characters. A text that is cut there ends in a replacement
character, and a prompt of that text is another one than what was measured.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from heldout.core.graphemes import is_boundary
from heldout.core.row import Row
from heldout.core.token_size import TokenSize
from heldout.lm.special_tokens import content_ids

_REPLACEMENT = "\ufffd"
_FARTHEST = 64  # tokens from a cut to the end of a character
_SAMPLED_ROWS, _SAMPLED_CHARACTERS = 200, 2000


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of token ids without special tokens, up to its last whole character."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).rstrip(_REPLACEMENT)


def whole_cut(tokenizer: Any, ids: Sequence[int], cut: int) -> int:
    """The last place up to ``cut`` at which the tokens end with a whole character, 1 or more.

    Where the first character already reaches beyond ``cut``, the place after it. A character is a
    grapheme cluster: a letter with its marks. Costs a few decodings of the text before ``cut``.
    """
    if not 0 < cut < len(ids):
        return max(0, min(cut, len(ids)))
    start = max(0, cut - _FARTHEST)
    whole = _text(tokenizer, ids[start : cut + _FARTHEST])
    nearest = [*range(cut, start, -1), *range(cut + 1, min(len(ids), cut + _FARTHEST))]
    for place in nearest:
        head = _text(tokenizer, ids[start:place])
        if head and whole.startswith(head) and is_boundary(whole, len(head)):
            return place
    return cut


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def token_size(tokenizer: Any, rows: Sequence[Row]) -> TokenSize:
    """Of the rows' text under the tokenizer, by a sample that is spread over them."""
    step = max(1, len(rows) // _SAMPLED_ROWS)
    texts = [row.text[:_SAMPLED_CHARACTERS] for row in islice(rows, 0, None, step)]
    return TokenSize.of(texts, sum(len(content_ids(tokenizer, text)) for text in texts))
