"""The user's own task metric, paired by document against the base model."""

from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import paired_difference, ratio_estimate

SOURCE = "exact match; ROUGE-L: Lin 2004; or the user's function"
COST = "greedy generation of the held-out answers by the base and the best model"


@dataclass(frozen=True)
class TaskMetric(Probe):
    """Mean score; the contrast to the base model is positive where the model became better."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        base = evidence.scores.get(("base", "test"))
        for model in ("base", "best"):
            scores = evidence.scores.get((model, "test"))
            if scores is None or len(np.unique(scores.groups_D)) < 2:
                continue
            ones = np.ones(len(scores.scores_D))
            level = ratio_estimate(scores.scores_D, ones, scores.groups_D)
            contrasts = {}
            if model != "base" and base is not None:
                difference = paired_difference(
                    scores.scores_D, base.scores_D, ones, scores.groups_D
                )
                contrasts["base"] = difference.as_contrast()
            name = f"metric_{model}"
            found.append(level.as_measurement(name, scores.metric, "group of rows", contrasts))
        return found or [
            NotMeasured("metric_best", "no task metric: name one with --set eval.metric=...")
        ]
