"""Runs of tokens."""

from collections.abc import Sequence

import numpy as np


def ngrams(ids: Sequence[int] | np.ndarray, n: int) -> list[tuple[int, ...]]:
    """All ``n`` tokens in a row, in their order; none of fewer than ``n`` tokens."""
    tokens = [int(token) for token in ids]
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))
