"""Exposure: how far planted secrets stand out among those that could have been planted, in bits.

All ranks of a string that was never seen are equally likely, so that its exposure is 1 bit in the
median and log2 e = 1.44 bits on average, not 0. The most that can be seen is log2 of the number of
references. The base model never saw any of them.
"""

# K canaries, R references

from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.pass_statistics import CanaryLosses
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.stats import paired_difference, ratio_estimate

SOURCE = "Carlini et al. 2019, arXiv 1802.08232"
COST = "one forward pass over a few hundred short references per planted secret"

LEAST_CANARIES = 4
UNSEEN_MEAN = float(np.log2(np.e))  # bits, of a string that was never seen, with many references
UNSEEN_MEDIAN = 1.0


@dataclass(frozen=True)
class Exposure(Probe):
    """Mean exposure of all planted secrets, and of those planted equally often; in bits."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        best = evidence.get(CanaryLosses, "best")
        if best is None or len(best) < LEAST_CANARIES:
            reason = (
                "no secrets were planted: heldout check --plant-canaries does that"
                if best is None
                else f"needs {LEAST_CANARIES} planted secrets, has {len(best)}"
            )
            return [NotMeasured("exposure_best", reason)]
        base = evidence.get(CanaryLosses, "base")
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            canaries = evidence.get(CanaryLosses, model)
            if canaries is not None:
                control = base if model != "base" else None
                everything = np.ones(len(canaries), dtype=bool)
                found.append(_mean(f"exposure_{model}", canaries, control, everything))
        for copies in np.unique(best.copies_K).tolist():
            chosen_K = best.copies_K == copies
            if chosen_K.sum() >= LEAST_CANARIES:
                found.append(_mean(f"exposure_{copies}_copies_best", best, base, chosen_K))
        return found


def exposure(nats: np.ndarray, reference_nats: np.ndarray) -> np.ndarray:
    """log2 R - log2 rank of each of ``nats`` (K,) among its references, (K, R) or (R,), in bits.

    The rank is 1 plus the number of references with a lower loss, so a secret that loses against
    all R has log2(R / (R + 1)), just below 0.
    """
    references_KR = np.atleast_2d(reference_nats)
    rank_K = 1 + (references_KR < np.asarray(nats)[:, None]).sum(axis=1)
    return np.log2(references_KR.shape[1]) - np.log2(rank_K)


def _mean(
    name: str, canaries: CanaryLosses, base: CanaryLosses | None, chosen_K: np.ndarray
) -> Measurement:
    bits_K = exposure(canaries.nats_K, canaries.reference_nats_KR)[chosen_K]
    number_K, ones_K = np.arange(len(bits_K)), np.ones(len(bits_K))
    level = ratio_estimate(bits_K, ones_K, number_K, null=UNSEEN_MEAN, signed=True)
    contrasts: dict[str, Contrast] = {}
    if base is not None:
        base_bits_K = exposure(base.nats_K, base.reference_nats_KR)[chosen_K]
        change = paired_difference(bits_K, base_bits_K, ones_K, number_K)
        contrasts["base"] = change.as_contrast()
    most = np.log2(canaries.reference_nats_KR.shape[1])
    return Measurement(
        name=name,
        value=level.value,
        unit="bits",
        num_units=len(bits_K),
        resampled_unit="planted secret",
        interval=level.interval,
        contrasts=contrasts,
        note=f"at most {most:.2f} can be seen, unseen secrets have {UNSEEN_MEAN:.2f} on average "
        f"({UNSEEN_MEDIAN:.0f} in the median); {_by_copies(canaries)}",
    )


def _by_copies(canaries: CanaryLosses) -> str:
    bits_K = exposure(canaries.nats_K, canaries.reference_nats_KR)
    means = [
        f"{bits_K[canaries.copies_K == copies].mean():.1f} at {copies}"
        for copies in np.unique(canaries.copies_K).tolist()
    ]
    return "by copies: " + ", ".join(means)
