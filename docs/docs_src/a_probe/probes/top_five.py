"""Top five: how often the true token of held-out text is among the five likeliest."""

# D documents

from dataclasses import dataclass

import numpy as np

from heldout import Evidence, Measurement, NotMeasured, Probe
from heldout.functions import paired_difference, ratio_estimate

SOURCE = "an example"
COST = "one forward pass over held-out rows per model"


@dataclass(frozen=True)
class Hits:
    """Of each held-out row under one model."""

    hits_D: np.ndarray  # tokens that were among the five likeliest
    tokens_D: np.ndarray
    groups_D: np.ndarray


@dataclass(frozen=True)
class TopFive(Probe):
    """Share of tokens; the contrast to the base is positive where the model became better."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        best, base = evidence.get(Hits, "best"), evidence.get(Hits, "base")
        if best is None:
            return [NotMeasured("top_five_best", "the ranks of tokens were not gathered")]
        level = ratio_estimate(best.hits_D, best.tokens_D, best.groups_D)
        contrasts = {}
        if base is not None:
            change = paired_difference(best.hits_D, base.hits_D, best.tokens_D, best.groups_D)
            contrasts["base"] = change.as_contrast()
        return [
            level.as_measurement("top_five_best", "share of tokens", "group of rows", contrasts)
        ]
