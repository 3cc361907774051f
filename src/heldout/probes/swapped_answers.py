"""Swapped answers: training answers that the base model finds no likelier after their own prompts.

Each answer is read after its own prompt and after that of another row. Held-out rows are the
control: where the base model does not tell their prompts apart, nothing is said. Which rows are
doubtful: ``heldout check --cross-validate``.
"""

# D rows

from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.other_prompts import OtherPrompts
from heldout.core.probe import Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import LEAST_TO_RESAMPLE

SOURCE = "information of a prompt for its answer: Ethayarajh et al. 2022, arXiv 2110.08420"
COST = "a forward pass of the base model over up to 50 rows of each part"

NAME = "likelier_after_own_base"
BY_CHANCE = 0.5  # of answers that have nothing to do with their prompts
LEAST_ROWS = 20


@dataclass(frozen=True)
class SwappedAnswers(Probe):
    """Share of training answers that are likelier after their own prompts, and what it lacks."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        train = evidence.get(OtherPrompts, "train")
        heldout = evidence.get(OtherPrompts, "test")
        if train is None or heldout is None:
            reason = "needs a base model, and rows of a prompt and one answer in both parts"
            return [NotMeasured(NAME, reason)]
        num_groups = len(np.unique(train.groups_D))
        fewest_groups = min(num_groups, len(np.unique(heldout.groups_D)))
        if min(len(train), len(heldout)) < LEAST_ROWS or fewest_groups < LEAST_TO_RESAMPLE:
            reason = f"needs {LEAST_ROWS} rows of {LEAST_TO_RESAMPLE} groups on both sides"
            return [NotMeasured(NAME, reason)]
        of_heldout = _likelier(heldout)
        if not of_heldout[1].low > BY_CHANCE:
            reason = (
                "the base model does not see which prompt is whose: "
                f"{of_heldout[0]:.0%} of the held-out answers are likelier after their own"
            )
            return [NotMeasured(NAME, reason)]
        of_train = _likelier(train)
        return [
            Measurement(
                name=NAME,
                value=of_train[0],
                unit="share of answers",
                num_units=num_groups,
                resampled_unit="group of rows",
                interval=of_train[1],
                contrasts={"heldout": difference_of_shares(of_train, of_heldout)},
                note="likelier after their own prompt than after another row's; by chance, half",
            )
        ]


def _likelier(read: OtherPrompts) -> tuple[float, Interval]:
    """Share that is likelier after its own prompt, with its interval."""
    return share_estimate(read.own_nats_D < read.other_nats_D, read.groups_D)
