"""Odd rows: training rows that the base model finds less likely than nearly all held-out rows.

The held-out rows are the control: by definition one in twenty of them is odd. The base model has
learned neither, so what it finds odd is garbled, wrong, or of another kind. Answers that were
swapped among rows are not odd: for those, ``swapped_answers``.
"""

# D documents

from dataclasses import dataclass

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    LEAST_TO_RESAMPLE,
)

SOURCE = "wrong labels stand out by their loss: Northcutt et al. 2021, arXiv 1911.00068"
COST = "nothing beyond one forward pass of the base model over both parts"

ODD_SHARE = 0.05  # of the held-out rows
LEAST_ROWS = 20
LEAST_BYTES = 16  # of a row that is judged


@dataclass(frozen=True)
class OddRows(Probe):
    """Share of training rows beyond the 95 % quantile of held-out rows, and its excess."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        name = "odd_rows_base"
        train = evidence.losses.get(("base", "train"))
        heldout = evidence.losses.get(("base", "test"))
        if train is None or heldout is None:
            return [NotMeasured(name, "needs the base model's losses on both parts")]
        long_D, control_D = (each.num_bytes_D >= LEAST_BYTES for each in (train, heldout))
        groups, control_groups = train.groups_D[long_D], heldout.groups_D[control_D]
        num_groups = len(set(groups.tolist()))
        fewest_groups = min(num_groups, len(set(control_groups.tolist())))
        if min(len(groups), len(control_groups)) < LEAST_ROWS or fewest_groups < LEAST_TO_RESAMPLE:
            reason = f"needs {LEAST_ROWS} rows of {LEAST_TO_RESAMPLE} groups on both sides"
            return [NotMeasured(name, reason)]
        share, interval = share_estimate(odd_rows(train, heldout)[long_D], groups)
        control = share_estimate(odd_rows(heldout, heldout)[control_D], control_groups)
        return [
            Measurement(
                name=name,
                value=share,
                unit="share of rows",
                num_units=num_groups,
                resampled_unit="group of rows",
                interval=interval,
                contrasts={"heldout": difference_of_shares((share, interval), control)},
                note="by bits per byte under the base model",
            )
        ]


def odd_rows(losses: DocumentLosses, heldout: DocumentLosses) -> np.ndarray:
    """Of each document, whether its bits per byte lie above the 95 % quantile of the held-out ones.

    Per byte, since garbled words fall into more tokens. False where a document is too short.
    """
    control_D = heldout.num_bytes_D >= LEAST_BYTES
    rates_D = losses.nll_nats_D / np.maximum(losses.num_bytes_D, 1)
    control = (heldout.nll_nats_D / np.maximum(heldout.num_bytes_D, 1))[control_D]
    if not len(control):
        return np.zeros(len(losses), dtype=bool)
    bound = np.quantile(control, 1 - ODD_SHARE)
    return (rates_D > bound) & (losses.num_bytes_D >= LEAST_BYTES)
