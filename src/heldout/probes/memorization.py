"""Recital: the share of training rows that greedy decoding continues word for word.

The controls are held-out rows, which no model can have learned by heart, and the base model, which
has not seen either. Fixed phrases are recited from held-out rows just as often.
"""

from dataclasses import dataclass

from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.pass_statistics import SHORT_SUFFIX
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate

SOURCE = (
    "Carlini et al. 2022, arXiv 2202.07646; intervals: Korn and Graubard 1998, Zou and Donner 2008"
)
COST = "one forward pass over as many held-out as training rows"

LEAST_ROWS = 20


@dataclass(frozen=True)
class Memorization(Probe):
    """Share of training rows; ``heldout`` and ``base`` contrasts: positive is recited more."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        base = self._against_heldout(evidence, "base")
        for model in MODELS:
            excess = self._against_heldout(evidence, model)
            if excess is None:
                continue
            train = evidence.memorization[model, "train"]
            share, interval = share_estimate(train.memorized_D, train.groups_D)
            contrasts = {"heldout": excess}
            if model != "base" and base is not None:
                contrasts["base"] = difference_of_shares(
                    (excess.difference, excess.interval), (base.difference, base.interval)
                )
            found.append(
                Measurement(
                    name=f"recital_{model}",
                    value=share,
                    unit="share of rows",
                    num_units=len(set(train.groups_D.tolist())),
                    resampled_unit="group of rows",
                    interval=interval,
                    contrasts=contrasts,
                    note=_lengths(evidence),
                )
            )
        return found or [NotMeasured("recital_best", _why_not(evidence))]

    def _against_heldout(self, evidence: Evidence, model: str) -> Contrast | None:
        train = evidence.memorization.get((model, "train"))
        test = evidence.memorization.get((model, "test"))
        if train is None or test is None or min(len(train), len(test)) < LEAST_ROWS:
            return None
        first: tuple[float, Interval] = share_estimate(train.memorized_D, train.groups_D)
        return difference_of_shares(first, share_estimate(test.memorized_D, test.groups_D))


def _why_not(evidence: Evidence) -> str:
    num_train, num_test = (
        len(rows) if (rows := evidence.memorization.get(("best", part))) is not None else 0
        for part in ("train", "test")
    )
    least = sum(map(evidence.token_size.tokens, SHORT_SUFFIX))
    return (
        f"needs {LEAST_ROWS} training and {LEAST_ROWS} held-out rows of {least} scored tokens or "
        f"more to see reciting, has {num_train} and {num_test}"
    )


def _lengths(evidence: Evidence) -> str:
    prefix, suffix = map(evidence.token_size.tokens, SHORT_SUFFIX)
    return f"{suffix} tokens after {prefix}"
