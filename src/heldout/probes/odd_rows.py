"""Odd rows: training rows that the base model finds less likely than nearly all held-out rows.

The held-out rows are the control: by definition one in twenty of them is odd. The base model has
learned neither, so what it finds odd is wrong, or of another kind.
"""

# D documents

from dataclasses import dataclass

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import LEAST_TO_RESAMPLE, difference_of_estimates, share_estimate

SOURCE = "wrong labels stand out by their loss: Northcutt et al. 2021, arXiv 1911.00068"
COST = "nothing beyond one forward pass of the base model over both parts"

ODD_SHARE = 0.05  # of the held-out rows
LEAST_ROWS = 20
LEAST_TOKENS = 8  # of a row that is judged


@dataclass(frozen=True)
class OddRows(Probe):
    """Share of training rows beyond the 95 % quantile of held-out rows, and its excess."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        train = evidence.losses.get(("base", "train"))
        heldout = evidence.losses.get(("base", "test"))
        name = "odd_rows_base"
        if train is None or heldout is None:
            return [NotMeasured(name, "needs the base model's losses on both parts")]
        rates, groups = nats_per_token(train)
        control_rates, control_groups = nats_per_token(heldout)
        num_groups = len(set(groups.tolist()))
        fewest_groups = min(num_groups, len(set(control_groups.tolist())))
        if min(len(rates), len(control_rates)) < LEAST_ROWS or fewest_groups < LEAST_TO_RESAMPLE:
            reason = f"needs {LEAST_ROWS} rows of {LEAST_TO_RESAMPLE} groups on both sides"
            return [NotMeasured(name, reason)]
        bound = float(np.quantile(control_rates, 1 - ODD_SHARE))
        share, interval = share_estimate(rates > bound, groups)
        control = share_estimate(control_rates > bound, control_groups)
        return [
            Measurement(
                name=name,
                value=share,
                unit="share of rows",
                num_units=num_groups,
                resampled_unit="group of rows",
                interval=interval,
                contrasts={"heldout": difference_of_estimates((share, interval), control)},
                note=f"rows above {bound:.2f} nats/token under the base model",
            )
        ]


def nats_per_token(losses: DocumentLosses) -> tuple[np.ndarray, np.ndarray]:
    """Loss per token and group of each document that is long enough to be judged."""
    long_D = losses.num_tokens_D >= LEAST_TOKENS
    return losses.nll_nats_D[long_D] / losses.num_tokens_D[long_D], losses.groups_D[long_D]
