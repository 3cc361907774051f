"""Tasks of the lm-evaluation-harness: what the model can do beside what it was tuned on.

The base model on the same documents is the control; where higher is better, as of an accuracy, a
negative contrast is worse than the base.
"""

from dataclasses import dataclass

import numpy as np

from heldout.core.harness import HarnessScores
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    difference_of_ratios,
    paired_difference,
    ratio_estimate,
)

SOURCE = "Biderman et al. 2024, lm-evaluation-harness, arXiv 2405.14782"
COST = "what the named tasks ask for, per model; needs lm-eval installed"


@dataclass(frozen=True)
class HarnessTasks(Probe):
    """Per task the mean of its metric, and the difference to the base, paired by document."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        names = sorted({task for _, task in evidence.every(HarnessScores)})
        if not names:
            return [NotMeasured("task_best", "no tasks were named: give --tasks")]
        found: list[Measurement | NotMeasured] = []
        for task in names:
            base = evidence.get(HarnessScores, "base", task)
            for model in ("base", "best"):
                scores = evidence.get(HarnessScores, model, task)
                if scores is None:
                    continue
                if len(scores) < 2:
                    found.append(NotMeasured(f"task_{task}_{model}", "needs two documents"))
                    continue
                control = base if model == "best" else None
                found.append(_measurement(f"task_{task}_{model}", scores, control))
        return found


def _measurement(name: str, scores: HarnessScores, base: HarnessScores | None) -> Measurement:
    value, interval = _level(scores)
    contrasts = {}
    if base is not None and np.array_equal(base.documents_D, scores.documents_D):
        contrasts["base"] = _contrast(scores, base)
    error = scores.standard_error
    return Measurement(
        name,
        value,
        scores.metric,
        len(scores),
        "document",
        interval,
        contrasts,
        "" if error is None else f"the harness's own standard error is {error:.4f}",
    )


def _is_share(scores: HarnessScores) -> bool:
    return bool(np.isin(scores.scores_D, (0.0, 1.0)).all())


def _level(scores: HarnessScores) -> tuple[float, Interval]:
    if _is_share(scores):
        return share_estimate(scores.scores_D, scores.documents_D)
    level = ratio_estimate(scores.scores_D, np.ones(len(scores)), scores.documents_D)
    return level.value, level.interval


def _contrast(scores: HarnessScores, base: HarnessScores) -> Contrast:
    """Paired by document; as of two samples where no document differs, which has no spread."""
    ones = np.ones(len(scores))
    if np.array_equal(scores.scores_D, base.scores_D):
        if _is_share(scores):
            return difference_of_shares(_level(scores), _level(base))
        sides = [(each.scores_D, ones, each.documents_D) for each in (scores, base)]
        return Contrast(*difference_of_ratios(*sides), 1.0)
    return paired_difference(scores.scores_D, base.scores_D, ones, scores.documents_D).as_contrast()
