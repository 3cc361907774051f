"""Position: loss by distance from the start of a text, beside the base model's.

A loss that rises with the distance, where the base model's falls, tells of a model that was tuned
on shorter text than it is asked to read.
"""

# D documents, P position buckets

from dataclasses import dataclass

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.pass_statistics import POSITION_EDGES
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import LEAST_TO_RESAMPLE, paired_difference, ratio_estimate

SOURCE = "loss by position: Kaplan et al. 2020, arXiv 2001.08361, figure 20"
COST = "nothing beyond one forward pass over held-out rows"


@dataclass(frozen=True)
class Position(Probe):
    """Nats per token by bucket of positions in held-out text; negative contrasts are better."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        best, base = (evidence.statistics.get((model, "test")) for model in ("best", "base"))
        found: list[Measurement | NotMeasured] = []
        for bucket, first in enumerate(POSITION_EDGES):
            if best is None:
                break
            tokens_D = best.position_tokens_DP[:, bucket]
            groups_D = best.losses.groups_D
            # A document that ends before the bucket says nothing about it.
            in_bucket_D = tokens_D > 0
            if len(set(groups_D[in_bucket_D].tolist())) < LEAST_TO_RESAMPLE:
                continue
            weights_D, kept_D = tokens_D[in_bucket_D], groups_D[in_bucket_D]
            nats_D = best.position_nats_DP[in_bucket_D, bucket]
            level = ratio_estimate(nats_D, weights_D, kept_D)
            contrasts = {}
            if base is not None:
                base_nats_D = base.position_nats_DP[in_bucket_D, bucket]
                change = paired_difference(nats_D, base_nats_D, weights_D, kept_D)
                contrasts["base"] = change.as_contrast()
            found.append(
                level.as_measurement(
                    f"position_nll_{first}_best",
                    "nats/token",
                    "group of rows",
                    contrasts,
                    f"scored tokens from {_range(bucket)}, counted from the start",
                )
            )
        return found or [
            NotMeasured("position_nll_0_best", f"needs held-out rows of {LEAST_TO_RESAMPLE} groups")
        ]


def _range(bucket: int) -> str:
    first = POSITION_EDGES[bucket]
    if bucket + 1 == len(POSITION_EDGES):
        return f"{first} on"
    return f"{first} to {POSITION_EDGES[bucket + 1] - 1}"
