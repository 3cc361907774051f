"""Parts of the training rows that lie within one another, in whole groups."""

import hashlib
from collections.abc import Sequence

import numpy as np

from heldout.core.row import Row


def group_order(rows: Sequence[Row], seed: int) -> list[str]:
    """Groups in an order of the seed's own that does not depend on the order of the rows."""

    def key(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode()).digest()

    return sorted({row.group for row in rows}, key=key)


def nested_part(
    rows: Sequence[Row], tokens: Sequence[int], order: Sequence[str], fraction: float
) -> list[int]:
    """Positions of the rows of the first groups in ``order`` that hold this share of the tokens.

    Whole groups, so that the parts of one order lie within one another; as near to the share as
    groups allow, and at least one group.
    """
    per_group: dict[str, int] = {}
    for row, num in zip(rows, tokens, strict=True):
        per_group[row.group] = per_group.get(row.group, 0) + num
    reached = np.cumsum([per_group[group] for group in order])
    last = int(np.argmin(np.abs(reached - fraction * reached[-1])))
    wanted = set(order[: last + 1])
    return [position for position, row in enumerate(rows) if row.group in wanted]
