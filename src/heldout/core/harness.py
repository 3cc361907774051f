"""Scores of a task of the lm-evaluation-harness, document by document."""

# D documents

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HarnessScores:
    """The task's own metric for each document; ``standard_error`` is the harness's, of its mean."""

    metric: str
    scores_D: np.ndarray
    documents_D: np.ndarray  # names, equal for all models
    standard_error: float | None = None

    def __len__(self) -> int:
        return len(self.scores_D)
