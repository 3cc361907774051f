"""Training and held-out rows as the token ids that generated text is searched in."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from heldout.core.row import Row
from heldout.core.verbatim import Corpora
from heldout.lm.tokenize import tokenize_rows

MOST_TOKENS = 20_000_000  # a quarter of a gigabyte


def corpora(
    train: Iterable[Row],
    heldout: Iterable[Row],
    tokenizer: Any,
    *,
    most_tokens: int = MOST_TOKENS,
    seed: int = 0,
) -> Corpora:
    """Index every row as a model sees it, prompt and special tokens included.

    ``heldout`` are rows of the part that is prompted from. Rows after the first ``most_tokens`` are
    not read; ``complete`` says whether all were. Costs one tokenization of the rows, a microsecond
    a token for the index, and 24 bytes a token.
    """
    trained, all_train = _documents(train, tokenizer, most_tokens)
    unseen, _ = _documents(heldout, tokenizer, most_tokens)
    return Corpora.build(trained, unseen, seed, complete=all_train)


def _documents(
    rows: Iterable[Row], tokenizer: Any, most_tokens: int
) -> tuple[list[tuple[int, np.ndarray]], bool]:
    found: list[tuple[int, np.ndarray]] = []
    total = 0
    for row, tokenized in tokenize_rows(rows, tokenizer, 1 << 30):
        if total >= most_tokens:
            return found, False
        for window in tokenized.windows:
            found.append((row.index, np.array(window.input_ids, dtype=np.int32)))
            total += len(window.input_ids)
    return found, True
