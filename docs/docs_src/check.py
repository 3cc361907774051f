"""Look at data before training on it."""

import heldout


def leaks(train: str, heldout_rows: str) -> list[tuple[int, int, str]]:
    """Training row, held-out row and kind of each leak."""
    found = heldout.check(train, heldout=[heldout_rows])
    print(found.headline)
    return [(pair.first.row, pair.second.row, pair.kind) for pair in found.leaks]
