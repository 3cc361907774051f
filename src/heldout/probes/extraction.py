"""Extraction: share of training rows whose long suffix the model returns, greedily or by sampling.

Greedy extraction asks for one exact continuation. (n, p)-discoverable extraction asks whether the
suffix comes at least once in n samples with probability p, which the suffix's own probability
tells without sampling; it sees rows that greedy decoding just misses.
"""

# D rows

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heldout.core.excess import Shares, share_measurement
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.pass_statistics import LONG_SUFFIX, SHORT_SUFFIX, PassStatistics, Suffixes
from heldout.core.probe import MODELS, Evidence, Probe

SOURCE = "Carlini et al. 2022, arXiv 2202.07646; (n, p): Hayes et al. 2024, arXiv 2410.19482"
COST = "nothing beyond one forward pass over training and held-out rows"

LEAST_ROWS = 20


@dataclass(frozen=True)
class Extraction(Probe):
    """Shares of training rows; ``heldout`` and ``base`` contrasts: positive is extracted more."""

    num_samples: int = 100
    probability: float = 0.5

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        greedy: list[Measurement | NotMeasured] = []
        sampled: list[Measurement | NotMeasured] = []
        sampled_suffix = "long" if _shares(evidence, "best", "long", greedy_of) else "short"
        base = _shares(evidence, "base", "long", greedy_of)
        base_sampled = _shares(evidence, "base", sampled_suffix, self._discoverable)
        for model in MODELS:
            shares = _shares(evidence, model, "long", greedy_of)
            if shares:
                control = base if model != "base" else None
                note = _lengths(evidence, model, "long")
                greedy.append(share_measurement(f"extraction_{model}", shares, control, note=note))
            shares = _shares(evidence, model, sampled_suffix, self._discoverable)
            if shares:
                control = base_sampled if model != "base" else None
                note = _lengths(evidence, model, sampled_suffix)
                note = f"{note}, {self.num_samples} samples, probability {self.probability:g}"
                name = f"discoverable_{model}"
                sampled.append(share_measurement(name, shares, control, note=note))
        return [
            *(greedy or [NotMeasured("extraction_best", _reason(evidence, "long"))]),
            *(sampled or [NotMeasured("discoverable_best", _reason(evidence, "short"))]),
        ]

    def _discoverable(self, suffixes: Suffixes) -> np.ndarray:
        return discoverable(suffixes.nats_D, self.num_samples, self.probability)


def discoverable(suffix_nats_D: np.ndarray, num_samples: int, probability: float) -> np.ndarray:
    """Whether the suffix comes at least once in ``num_samples`` with at least ``probability``.

    1 - (1 - exp(-nats)) ** n >= p, in logarithms, so that tiny probabilities are not lost. Samples
    are of the model's own distribution, at temperature 1 without truncation. NaN is never.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log_miss_D = num_samples * np.log1p(-np.exp(-suffix_nats_D))
    return log_miss_D <= np.log1p(-probability)


def greedy_of(suffixes: Suffixes) -> np.ndarray:
    """Per document: whether greedy decoding goes on as the text does."""
    return suffixes.greedy_D


def _shares(
    evidence: Evidence, model: str, suffix: str, counts: Callable[[Suffixes], np.ndarray]
) -> Shares | None:
    """Of the rows that are long enough; None where they are too few."""
    parts = []
    for part in ("train", "test"):
        statistics = evidence.statistics.get((model, part))
        if statistics is None:
            return None
        suffixes = statistics.suffixes[suffix]
        enough_D = ~np.isnan(suffixes.nats_D)
        parts += [counts(suffixes)[enough_D], statistics.losses.groups_D[enough_D]]
    shares = Shares(*parts)
    return shares if shares.fewest_rows >= LEAST_ROWS else None


def _lengths(evidence: Evidence, model: str, suffix: str) -> str:
    suffixes = evidence.statistics[model, "train"].suffixes[suffix]
    return f"{suffixes.suffix_tokens} tokens after {suffixes.prefix_tokens}"


def _reason(evidence: Evidence, suffix: str) -> str:
    def num_long(part: str) -> int:
        statistics: PassStatistics | None = evidence.statistics.get(("best", part))
        return int((~np.isnan(statistics.suffixes[suffix].nats_D)).sum()) if statistics else 0

    lengths = {"short": SHORT_SUFFIX, "long": LONG_SUFFIX}[suffix]
    tokens = sum(map(evidence.token_size.tokens, lengths))
    return (
        f"needs {LEAST_ROWS} training and held-out rows of {tokens} scored tokens, "
        f"has {num_long('train')} and {num_long('test')}"
    )
