"""A share of training rows beyond the same share of held-out rows, and beyond that of the base.

Held-out rows were never learned and the base has seen neither, so what fixed phrases and easy rows
do to a share is taken off twice.
"""

# D rows

from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.core.measurement import Contrast, Measurement
from heldout.core.shares import difference_of_shares, share_estimate


@dataclass(frozen=True)
class Shares:
    """Which training and which held-out rows count, each with its group."""

    train_D: np.ndarray
    train_groups_D: np.ndarray
    heldout_D: np.ndarray
    heldout_groups_D: np.ndarray

    @property
    def fewest_rows(self) -> int:
        return min(len(self.train_D), len(self.heldout_D))

    def excess(self) -> Contrast:
        """Training minus held-out share, with its interval over groups."""
        return difference_of_shares(
            share_estimate(self.train_D, self.train_groups_D),
            share_estimate(self.heldout_D, self.heldout_groups_D),
        )


def share_measurement(
    name: str, shares: Shares, base: Shares | None, *, note: str = "", unit: str = "share of rows"
) -> Measurement:
    """Share of training rows; contrast ``heldout``, and ``base`` where the base was measured."""
    share, interval = share_estimate(shares.train_D, shares.train_groups_D)
    excess = shares.excess()
    contrasts = {"heldout": excess}
    if base is not None:
        base_excess = base.excess()
        contrasts["base"] = difference_of_shares(_pair(excess), _pair(base_excess))
    return Measurement(
        name=name,
        value=share,
        unit=unit,
        num_units=len(np.unique(shares.train_groups_D)),
        resampled_unit="group of rows",
        interval=interval,
        contrasts=contrasts,
        note=note,
    )


def _pair(contrast: Contrast) -> Any:
    return contrast.difference, contrast.interval
