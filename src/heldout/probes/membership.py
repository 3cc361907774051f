"""Membership: how well a score tells training rows from held-out rows (area under the ROC curve).

One half is chance, one is certainty. Parts that differ in themselves are told apart by a model
that never saw either, so the base model's own area is the control.
"""

# M training rows (members), H held-out rows

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heldout.core.distributions import normal_quantile, student_t_p_value, student_t_quantile
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.pass_statistics import PassStatistics
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    effective_groups,
    group_sums,
)

SOURCE = (
    "loss: Yeom et al. 2018; zlib, reference: Carlini et al. 2021, arXiv 2012.07805; Min-K%: Shi "
    "et al. 2024, arXiv 2310.16789; Min-K%++: Zhang et al. 2025, arXiv 2404.02936; intervals: "
    "Newcombe 2006, DeLong et al. 1988 over groups (Obuchowski 1997)"
)
COST = "nothing beyond one forward pass over training and held-out rows"

ATTACKS = ("loss", "zlib", "zlib_total", "min_k", "min_k_plus", "reference")
LEAST_ROWS = 20
LEAST_CONTROLS = 100  # held-out rows, for a rate of false positives of one in a hundred
FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Membership(Probe):
    """Area under the curve by attack; the ``base`` contrast is positive where training shows."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            for attack in ATTACKS:
                scores = _scores(evidence, model, attack)
                if scores is None or (model == "base" and attack == "reference"):
                    continue
                control = _scores(evidence, "base", attack) if model != "base" else None
                found.append(_area(f"membership_auc_{attack}_{model}", scores, control))
        if not any(m.name.endswith("_best") for m in found):
            reason = f"needs {LEAST_ROWS} training and held-out rows with scored text"
            found.append(NotMeasured("membership_auc_loss_best", reason))
        if not any(m.name == "membership_auc_reference_best" for m in found):
            found.append(NotMeasured("membership_auc_reference_best", "needs the base model"))
        return [*found, _true_positives(evidence)]


def area_under_curve(members_M: np.ndarray, others_H: np.ndarray) -> float:
    """Probability that a member scores above another row; ties count one half."""
    return float(_placements(members_M, others_H).mean())


def membership_scores(
    statistics: PassStatistics, attack: str, base: PassStatistics | None
) -> np.ndarray:
    """Of each row, higher for a likelier member; NaN where it has no scored tokens."""
    losses = statistics.losses
    tokens_D = np.where(losses.num_tokens_D > 0, losses.num_tokens_D, np.nan)
    if attack == "loss":
        return -losses.nll_nats_D / tokens_D
    if attack.startswith("zlib"):
        # As the authors' code has it (github.com/ftramer/LM_Memorization): the logarithm of the
        # perplexity, which is the mean loss of a token, over the bytes of the compressed text.
        # ``zlib_total``: the loss of the whole text over them, which does not depend on its length.
        nats_D = losses.nll_nats_D / (tokens_D if attack == "zlib" else 1)
        return -nats_D / np.where(np.isnan(tokens_D), np.nan, statistics.zlib_bytes_D)
    if attack == "min_k":
        return statistics.min_k_D
    if attack == "min_k_plus":
        return statistics.min_k_plus_D
    assert base is not None, f"the {attack} attack needs the base model"
    return (base.losses.nll_nats_D - losses.nll_nats_D) / tokens_D


def area_interval(
    area: float, num_members: float, num_others: float, level: float = 0.95
) -> Interval:
    """Score interval of an area under the curve, honest at 0 and 1 too.

    Newcombe 2006 (Statistics in Medicine 25, 559), method 5: the areas that are ``z`` standard
    errors away, with the error of Hanley and McNeil at that area and both sizes as their mean.
    """
    z = normal_quantile((1 + level) / 2)
    mean_size = (num_members + num_others) / 2

    def misfit(candidate: float) -> float:
        spread = 1 + (mean_size - 1) * (
            (1 - candidate) / (2 - candidate) + candidate / (1 + candidate)
        )
        variance = candidate * (1 - candidate) * spread / (num_members * num_others)
        return abs(area - candidate) - z * variance**0.5

    return Interval(
        _bisect(misfit, 0.0, area), _bisect(misfit, 1.0, area), level, "Newcombe over groups"
    )


def _bisect(misfit: Callable[[float], float], outside: float, inside: float) -> float:
    if outside == inside:
        return inside
    for _ in range(60):
        middle = (outside + inside) / 2
        if misfit(middle) > 0:
            outside = middle
        else:
            inside = middle
    return inside


@dataclass(frozen=True)
class Scores:
    """Of the rows of both sides, higher for a likelier member, with the groups of the rows."""

    members_M: np.ndarray
    member_groups_M: np.ndarray
    others_H: np.ndarray
    other_groups_H: np.ndarray

    def placements(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of the other side that each row is on the right side of."""
        below_H = 1 - _placements(self.others_H, self.members_M)
        return _placements(self.members_M, self.others_H), below_H

    @property
    def area(self) -> float:
        return area_under_curve(self.members_M, self.others_H)

    def interval(self) -> Interval:
        """Of the area, at the number of independent rows.

        Withheld where a side has few groups, or fewer rows than an area is shown of.
        """
        groups = (self.member_groups_M, self.other_groups_H)
        if min(map(len, groups)) < LEAST_ROWS:
            return Interval.withheld()
        sizes = [_num_independent(*side) for side in zip(self.placements(), groups, strict=True)]
        return area_interval(self.area, *sizes) if all(sizes) else Interval.withheld()


def _num_independent(placed_D: np.ndarray, groups_D: np.ndarray) -> float:
    """Rows of one side that would leave the mean placement as uncertain as its groups do.

    No fewer than the groups, counted by size; 0 where they are too few. As ``share_estimate``
    counts rows, with a quarter of its penalty for the few groups that tell the number.
    """
    num_groups, num_rows = effective_groups(groups_D), len(placed_D)
    sums_G = group_sums(placed_D - placed_D.mean(), groups_D)
    over_groups = (sums_G**2).sum() * len(sums_G) / max(1, len(sums_G) - 1)
    if not num_groups or num_rows == len(sums_G) or over_groups <= 1e-12:
        return num_groups
    tails = [student_t_quantile(0.975, num - 1) for num in (num_rows, len(sums_G))]
    num_alike = num_rows * min(1.0, num_rows * placed_D.var(ddof=1) / over_groups)
    return max(num_groups, (tails[0] / tails[1]) ** 0.5 * num_alike)


def _scores(evidence: Evidence, model: str, attack: str) -> Scores | None:
    parts = []
    for part in ("train", "test"):
        statistics = evidence.statistics.get((model, part))
        base = evidence.statistics.get(("base", part))
        if statistics is None or (attack == "reference" and base is None):
            return None
        scores_D = membership_scores(statistics, attack, base)
        has_score_D = ~np.isnan(scores_D)
        if has_score_D.sum() < LEAST_ROWS:
            return None
        parts += [scores_D[has_score_D], statistics.losses.groups_D[has_score_D]]
    return Scores(*parts)


def _area(name: str, scores: Scores, control: Scores | None) -> Measurement:
    num_groups = [len(np.unique(g)) for g in (scores.member_groups_M, scores.other_groups_H)]
    contrasts = {}
    if control is not None:
        contrasts["base"] = area_difference(scores, control)
    return Measurement(
        name=name,
        value=scores.area,
        unit="area under the curve",
        num_units=min(num_groups),
        resampled_unit="group of rows",
        interval=scores.interval(),
        contrasts=contrasts,
    )


def area_difference(scores: Scores, control: Scores) -> Contrast:
    """Area minus the control's on the same rows; DeLong's variance, summed over groups.

    The reference attack's control is one half: against itself the base saves nothing anywhere.
    Withheld as the interval of an area is.
    """
    difference, variances, freedoms = scores.area - control.area, [], []
    sides = zip(scores.placements(), control.placements(), strict=True)
    groups = (scores.member_groups_M, scores.other_groups_H)
    for (placed_D, control_D), groups_D in zip(sides, groups, strict=True):
        change_D = placed_D - control_D
        _, index_D = np.unique(groups_D, return_inverse=True)
        sums_G = np.bincount(index_D, change_D - difference)
        num_groups = len(sums_G)
        freedoms.append(max(1, num_groups - 1))
        variances.append((sums_G**2).sum() * num_groups / freedoms[-1] / len(change_D) ** 2)
    if min(map(len, groups)) < LEAST_ROWS or not all(map(effective_groups, groups)):
        return Contrast(difference, Interval.withheld(), 1.0)
    error = sum(variances) ** 0.5
    if error == 0 or scores.area in (0.0, 1.0):
        # Placements that cannot vary have no error; the sizes of the sample still do.
        first, second = ((each.area, each.interval()) for each in (scores, control))
        return difference_of_shares(first, second)
    freedom = error**4 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    reach = student_t_quantile(0.975, freedom) * error
    p_value = student_t_p_value(difference / error, freedom)
    interval = Interval(difference - reach, difference + reach, 0.95, "DeLong over groups")
    return Contrast(difference, interval, p_value)


def _placements(scores_D: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of ``others`` that each score exceeds; ties count one half."""
    ordered = np.sort(others)
    below_D = np.searchsorted(ordered, scores_D, side="left")
    upto_D = np.searchsorted(ordered, scores_D, side="right")
    return (below_D + upto_D) / (2 * len(ordered))


def true_positive_rate(members_M: np.ndarray, others_H: np.ndarray, rate: float) -> np.ndarray:
    """Bool (M,): members above the threshold that at most ``rate`` of the others are above."""
    allowed = int(rate * len(others_H))
    threshold = np.sort(others_H)[::-1][allowed]
    return members_M > threshold


def _true_positives(evidence: Evidence) -> Measurement | NotMeasured:
    name = "membership_tpr_best"
    # Fixed beforehand: choosing the best of five would find something in a healthy model.
    attack = "reference" if ("base", "train") in evidence.statistics else "min_k_plus"
    scores = _scores(evidence, "best", attack)
    num_others = len(scores.others_H) if scores else 0
    if scores is None or num_others < LEAST_CONTROLS:
        return NotMeasured(
            name, f"needs {LEAST_CONTROLS} held-out rows for 1 % false positives, has {num_others}"
        )
    found_M = true_positive_rate(scores.members_M, scores.others_H, FALSE_POSITIVES)
    false_H = true_positive_rate(scores.others_H, scores.others_H, FALSE_POSITIVES)
    share, interval = share_estimate(found_M, scores.member_groups_M)
    false = share_estimate(false_H, scores.other_groups_H)
    return Measurement(
        name=name,
        value=share,
        unit="share of rows",
        num_units=len(np.unique(scores.member_groups_M)),
        resampled_unit="group of rows",
        interval=interval,
        contrasts={"heldout": difference_of_shares((share, interval), false)},
        note=f"{attack} attack, at most 1 % of {num_others} held-out rows above the threshold",
    )
