"""Confidence: whether the probability of the likeliest token is how often it is right.

Measured on held-out text, beside the base model on the same text.
"""

# D documents, C bins of confidence, G groups

from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.pass_statistics import PassStatistics
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.stats import (
    LEAST_TO_RESAMPLE,
    RatioEstimate,
    paired_difference,
    ratio_estimate,
)

SOURCE = (
    "expected calibration error: Guo et al. 2017, arXiv 1706.04599; adaptive: Nixon et al. 2019, "
    "arXiv 1904.01685; Brier 1950"
)
COST = "nothing beyond one forward pass over held-out rows"

NUM_BINS = 15
LEAST_TOKENS = 500


@dataclass(frozen=True)
class Confidence(Probe):
    """Calibration errors, Brier score, entropy, and confidence minus accuracy, per token."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        base = evidence.statistics.get(("base", "test"))
        for model in MODELS:
            statistics = evidence.statistics.get((model, "test"))
            if statistics is None or not _enough(statistics):
                continue
            for figure, unit, errors in _FIGURES:
                values_D = errors(statistics)
                estimate = _per_token(values_D, statistics)
                contrasts = {}
                if model != "base" and base is not None:
                    contrasts["base"] = paired_difference(
                        values_D,
                        errors(base),
                        statistics.losses.num_tokens_D,
                        statistics.losses.groups_D,
                    ).as_contrast()
                found.append(
                    Measurement(
                        name=f"{figure}_{model}",
                        value=estimate.value,
                        unit=unit,
                        num_units=estimate.num_groups,
                        resampled_unit="group of rows",
                        interval=_in_range(estimate, figure),
                        contrasts=contrasts,
                    )
                )
        if not any(m.name == "ece_best" for m in found):
            reason = f"needs {LEAST_TOKENS} held-out tokens in {LEAST_TO_RESAMPLE} groups"
            found.append(NotMeasured("ece_best", reason))
        return found


def calibration_error(statistics: PassStatistics, bins_C: np.ndarray) -> np.ndarray:
    """Each document's part (D,) of the expected calibration error, before division by all tokens.

    ``bins_C`` numbers the coarse bin of every fine one. In each bin the gap between confidence and
    accuracy counts with the sign that it has over all documents, so that the parts add up to
    sum |confidence - accuracy| and their spread over groups is that of the error (to first order).
    A sample of few tokens makes the error too large: compare models on the same text.
    """
    gap_DB = np.stack(
        [
            (statistics.bin_confidence_DC - statistics.bin_correct_DC)[:, bins_C == b].sum(1)
            for b in range(int(bins_C.max()) + 1)
        ],
        axis=1,
    ).astype(np.float64)
    return gap_DB @ np.sign(gap_DB.sum(0))


def equal_width_bins(num_fine: int, num_bins: int = NUM_BINS) -> np.ndarray:
    """Number of the coarse bin of each fine one, all of the same width."""
    return np.arange(num_fine) * num_bins // num_fine


def equal_mass_bins(tokens_C: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Number of the coarse bin of each fine one, each with about as many tokens."""
    before_C = np.cumsum(tokens_C) - tokens_C / 2
    return np.minimum((before_C / tokens_C.sum() * num_bins).astype(int), num_bins - 1)


def _equal_width(statistics: PassStatistics) -> np.ndarray:
    return calibration_error(statistics, equal_width_bins(statistics.bin_tokens_DC.shape[1]))


def _equal_mass(statistics: PassStatistics) -> np.ndarray:
    return calibration_error(statistics, equal_mass_bins(statistics.bin_tokens_DC.sum(0)))


def _brier(statistics: PassStatistics) -> np.ndarray:
    return statistics.brier_D


def _entropy(statistics: PassStatistics) -> np.ndarray:
    return statistics.entropy_nats_D


def _overconfidence(statistics: PassStatistics) -> np.ndarray:
    return (statistics.bin_confidence_DC - statistics.bin_correct_DC).sum(1).astype(np.float64)


_FIGURES = (
    ("ece", "probability", _equal_width),
    ("ece_adaptive", "probability", _equal_mass),
    ("brier", "squared error", _brier),
    ("entropy", "nats/token", _entropy),
    ("overconfidence", "probability", _overconfidence),
)


def _per_token(values_D: np.ndarray, statistics: PassStatistics) -> RatioEstimate:
    return ratio_estimate(values_D, statistics.losses.num_tokens_D, statistics.losses.groups_D)


def _in_range(estimate: RatioEstimate, figure: str) -> Interval:
    """Errors and entropies are never below zero, which the interval does not know."""
    return estimate.interval if figure == "overconfidence" else estimate.interval.within(0.0)


def _enough(statistics: PassStatistics) -> bool:
    losses = statistics.losses
    return losses.num_tokens_D.sum() >= LEAST_TOKENS and losses.num_groups >= LEAST_TO_RESAMPLE
