"""An order of training rows in which a micro-batch holds rows of like length.

For models whose batches must be padded; the rows that come together are drawn anew each epoch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_SORTED_BATCHES = 32  # drawn at random, then sorted by length together
MUCH_PADDING = 0.25  # share of a random order's tokens from which rows are grouped


class LengthOrder(Sampler[int]):
    """Places of all rows; the same ones for the same seed and epoch."""

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        drawn = random.permutation(len(self.lengths))
        step = _SORTED_BATCHES * self.batch_size
        batches = []
        for start in range(0, len(drawn), step):
            part = drawn[start : start + step]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [
                part[at : at + self.batch_size] for at in range(0, len(part), self.batch_size)
            ]
        last = batches.pop() if len(drawn) % self.batch_size else None  # must stay the last
        for place in random.permutation(len(batches)):
            yield from batches[place].tolist()
        if last is not None:
            yield from last.tolist()


def padded_share(lengths: np.ndarray, batch_size: int) -> float:
    """Share of a random order's tokens that are padding, with batches of so many rows."""
    drawn = np.random.default_rng(0).permutation(lengths)
    batches = np.split(drawn, range(batch_size, len(drawn), batch_size))
    return 1 - float(lengths.sum()) / sum(float(each.max()) * len(each) for each in batches)
