"""Domains: loss on other text than the model was tuned on, and what of it was forgotten.

The base model on the same documents is the control; a positive contrast is worse than the base.
"""

from dataclasses import dataclass

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import (
    LEAST_TO_RESAMPLE,
    RatioEstimate,
    mean_of_ratios,
    ratio_estimate,
)

SOURCE = "forgetting as loss on other domains: Luo et al. 2023, arXiv 2308.08747"
COST = "one forward pass over the text of each domain per model"

PREFIX = "domain:"


@dataclass(frozen=True)
class Domains(Probe):
    """Per domain: nats per token, and the ratio to the base; forgetting is the mean difference."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        domains: list[tuple[DocumentLosses, DocumentLosses]] = []
        for key, losses in sorted(evidence.losses.items()):
            model, part = key
            if model != "best" or not part.startswith(PREFIX):
                continue
            name = part.removeprefix(PREFIX)
            if losses.num_groups < LEAST_TO_RESAMPLE:
                reason = f"needs rows of {LEAST_TO_RESAMPLE} groups, has {losses.num_groups}"
                found.append(NotMeasured(f"domain_nll_{name}_best", reason))
                continue
            base = evidence.losses.get(("base", part))
            level = losses.estimate()
            contrasts = {}
            if base is not None:
                change = losses.minus(base)
                contrasts["base"] = change.as_contrast()
                domains.append((losses, base))
                ratio = ratio_estimate(
                    losses.nll_nats_D, base.nll_nats_D, losses.groups_D, null=1.0
                )
                less_one = ratio.interval.moved(plus=-1)
                found.append(
                    _measurement(
                        f"domain_nll_ratio_{name}_best",
                        ratio,
                        "times the base model's loss",
                        {"base": Contrast(ratio.value - 1, less_one, ratio.p_value)},
                    )
                )
            found.append(_measurement(f"domain_nll_{name}_best", level, "nats/token", contrasts))
        given = any(part.startswith(PREFIX) for _, part in evidence.losses)
        return [*found, _forgetting(domains, given)]


def _forgetting(
    domains: list[tuple[DocumentLosses, DocumentLosses]], given: bool
) -> Measurement | NotMeasured:
    if not given:
        reason = "no text of other domains was given: heldout diagnose takes it with --domain"
        return NotMeasured("forgetting_best", reason)
    if not domains:
        reason = (
            f"needs rows of {LEAST_TO_RESAMPLE} groups of other domains, read by a base model "
            "with the same tokenizer (--base)"
        )
        return NotMeasured("forgetting_best", reason)
    level = mean_of_ratios([(own.nll_nats_D, own.num_tokens_D, own.groups_D) for own, _ in domains])
    change = mean_of_ratios(
        [
            (own.nll_nats_D - base.nll_nats_D, own.num_tokens_D, own.groups_D)
            for own, base in domains
        ],
        signed=True,
    )
    return Measurement(
        name="forgetting_best",
        value=level.value,
        unit="nats/token",
        num_units=change.num_groups,
        resampled_unit="group of rows",
        interval=level.interval,
        contrasts={"base": change.as_contrast()},
        note="one domain" if len(domains) == 1 else f"mean over {len(domains)} domains",
    )


def _measurement(
    name: str, estimate: RatioEstimate, unit: str, contrasts: dict[str, Contrast]
) -> Measurement:
    return Measurement(
        name=name,
        value=estimate.value,
        unit=unit,
        num_units=estimate.num_groups,
        resampled_unit="group of rows",
        interval=estimate.interval,
        contrasts=contrasts,
    )
