"""Domains: loss on other text than the model was tuned on, and what of it was forgotten.

The base model on the same documents is the control; a positive contrast is worse than the base.
"""

from dataclasses import dataclass

from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import (
    LEAST_TO_RESAMPLE,
    RatioEstimate,
    normal_p_value,
    normal_quantile,
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
        levels: list[RatioEstimate] = []
        changes: list[RatioEstimate] = []
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
                levels.append(level)
                changes.append(change)
                ratio = ratio_estimate(
                    losses.nll_nats_D, base.nll_nats_D, losses.groups_D, null=1.0
                )
                less_one = Interval(
                    ratio.interval.low - 1,
                    ratio.interval.high - 1,
                    ratio.interval.level,
                    ratio.interval.method,
                )
                found.append(
                    _measurement(
                        f"domain_nll_ratio_{name}_best",
                        ratio,
                        "times the base model's loss",
                        {"base": Contrast(ratio.value - 1, less_one, ratio.p_value)},
                    )
                )
            found.append(_measurement(f"domain_nll_{name}_best", level, "nats/token", contrasts))
        return [*found, _forgetting(levels, changes)]


def _forgetting(
    levels: list[RatioEstimate], changes: list[RatioEstimate]
) -> Measurement | NotMeasured:
    if not changes:
        reason = "needs text of other domains, measured with the base model too"
        return NotMeasured("forgetting_best", reason)
    value, interval = mean_of_independent(levels)
    difference, change_interval = mean_of_independent(changes)
    if len(changes) == 1:
        p_value = changes[0].p_value
    else:
        nearer = change_interval.low if difference > 0 else change_interval.high
        reach = abs(difference - nearer)
        z = normal_quantile((1 + change_interval.level) / 2)
        p_value = normal_p_value(z * difference / reach) if reach else float(difference == 0)
    return Measurement(
        name="forgetting_best",
        value=value,
        unit="nats/token",
        num_units=sum(change.num_groups for change in changes),
        resampled_unit="group of rows",
        interval=interval,
        contrasts={"base": Contrast(difference, change_interval, p_value)},
        note=f"mean over {len(changes)} domain{'s' * (len(changes) > 1)}",
    )


def mean_of_independent(estimates: list[RatioEstimate]) -> tuple[float, Interval]:
    """Mean of independent estimates, each end of its interval recovered from theirs.

    The method of variance estimates recovery (Zou and Donner 2008): squared distances add up.
    """
    num = len(estimates)
    value = sum(e.value for e in estimates) / num
    below = sum((e.value - e.interval.low) ** 2 for e in estimates) ** 0.5 / num
    above = sum((e.interval.high - e.value) ** 2 for e in estimates) ** 0.5 / num
    first = estimates[0].interval
    method = first.method if num == 1 else "recovered from several intervals"
    return value, Interval(value - below, value + above, first.level, method)


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
