"""From what pairs of models say of rows to which rows are memorized; pure arithmetic."""

# D rows, V held-out rows, P pairs of models, S random sign patterns

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.results.counterfactual import Counterfactual, CounterfactualRow, Influence
from heldout.core.row import Row
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    difference_of_paired_ratios,
    difference_of_ratios,
    ratio_estimate,
)

CHANCE = 0.01  # of the rows nobody trained on lie beyond the threshold
NUM_PATTERNS = 200  # random sign patterns that tell how far chance reaches
SHOWN_INFLUENCES = 20
_SHOWN = 400  # characters of a row


@dataclass(frozen=True)
class PairStatistics:
    """What models say of training rows and held-out rows; pairs hold the half with the row first.

    ``accuracy_P2D``: share of each row's tokens that are the likeliest ones. ``nats_P2D``: its loss
    per token. For held-out rows the halves are those they were dealt to.
    """

    rows: list[Row]
    num_tokens_D: np.ndarray
    accuracy_P2D: np.ndarray
    nats_P2D: np.ndarray
    base_nats_D: np.ndarray
    is_first_PD: np.ndarray  # bool: in the first half of the pair

    @property
    def memorized_PD(self) -> np.ndarray:
        """Accuracy with minus without the row, by pair."""
        return self.accuracy_P2D[:, 0] - self.accuracy_P2D[:, 1]

    @property
    def first_minus_second_PD(self) -> np.ndarray:
        """Accuracy of the first half's model minus the second's, whatever the row's half."""
        return np.where(self.is_first_PD, 1, -1) * self.memorized_PD

    @property
    def groups(self) -> list[str]:
        return [row.group for row in self.rows]


def counterfactual_of(
    train: PairStatistics, heldout: PairStatistics | None, *, seed: int = 0
) -> Counterfactual:
    """Rows by memorization, influences and figures; chance is dealt by ``seed``.

    Target, epochs, rate and seconds of the result are left to the caller.
    """
    memorized_D = train.memorized_PD.mean(axis=0)
    intervals = [row_interval(of_row_P2) for of_row_P2 in train.accuracy_P2D.transpose(2, 0, 1)]
    threshold = None if heldout is None else chance_threshold(heldout.memorized_PD, seed)
    if threshold is None:
        is_clear_D = np.array([interval.low > 0 for interval in intervals])
    else:
        is_clear_D = memorized_D > threshold
    with_D, without_D = train.nats_P2D.mean(axis=0)
    rows = [
        CounterfactualRow(
            train.rows[place].index,
            train.rows[place].text[:_SHOWN],
            float(memorized_D[place]),
            intervals[place],
            bool(is_clear_D[place]),
            float(train.base_nats_D[place]),
            float(without_D[place]),
            float(with_D[place]),
        )
        for place in np.argsort(-memorized_D, kind="stable").tolist()
    ]
    return Counterfactual(
        "",
        2 * len(train.memorized_PD),
        0.0,
        0.0,
        len(set(train.groups)),
        rows,
        threshold,
        [] if heldout is None else influences(train, heldout, seed),
        _measurements(train, heldout, is_clear_D, threshold),
    )


def row_interval(accuracy_P2: np.ndarray) -> Interval:
    """95 % interval of a row's accuracy with minus without it, from P pairs of models.

    Withheld with fewer pairs than an interval needs groups.
    """
    pairs = range(len(accuracy_P2))
    with_P, without_P = accuracy_P2.T
    if np.ptp(with_P - without_P) < 1e-12:
        # Pairs that agree have no spread, though others could: each side as a share.
        sides = (share_estimate(values, pairs) for values in (with_P, without_P))
        return difference_of_shares(*sides).interval
    ones = np.ones(len(pairs))
    found = difference_of_paired_ratios((with_P, ones), (without_P, ones), pairs)
    return found.interval.within(-1.0, 1.0)


def chance_threshold(memorized_PV: np.ndarray, seed: int) -> float:
    """What a share CHANCE of rows that nobody trained on exceeds, dealt to halves at random."""
    num = len(memorized_PV)
    signs_SP = np.random.default_rng(seed).choice((-1.0, 1.0), (NUM_PATTERNS, num))
    return float(np.quantile(signs_SP @ memorized_PV / num, 1 - CHANCE))


def influences(train: PairStatistics, heldout: PairStatistics, seed: int) -> list[Influence]:
    """Training rows that change the accuracy on a held-out row by more than chance brings.

    Chance: the largest change of all pairs of rows where the models are assigned to the halves at
    random, in 95 of 100 such assignments. Few models can tell only strong influences apart.
    """
    signs_PD = np.where(train.is_first_PD, 1.0, -1.0)
    change_PV = heldout.first_minus_second_PD
    num = len(signs_PD)
    change_DV = signs_PD.T @ change_PV / num
    rng = np.random.default_rng(seed)
    largest = [
        float(np.abs(signs_PD.T @ (rng.choice((-1.0, 1.0), (num, 1)) * change_PV)).max()) / num
        for _ in range(NUM_PATTERNS)
    ]
    bar = float(np.quantile(largest, 0.95))
    places = np.argwhere(np.abs(change_DV) > bar)
    order = sorted(places.tolist(), key=lambda place: -abs(change_DV[tuple(place)]))
    return [
        Influence(
            train.rows[row].group,
            heldout.rows[other].index,
            float(change_DV[row, other]),
            train.rows[row].text[:_SHOWN],
            heldout.rows[other].text[:_SHOWN],
        )
        for row, other in order[:SHOWN_INFLUENCES]
    ]


def _measurements(
    train: PairStatistics,
    heldout: PairStatistics | None,
    is_clear_D: np.ndarray,
    threshold: float | None,
) -> list[Measurement | NotMeasured]:
    """Over groups of rows; the control is what the same figures are for held-out rows."""
    num_groups = len(set(train.groups))
    if num_groups < 2:
        reason = "the training rows are one group, and an interval needs two"
        return [NotMeasured(name, reason) for name in ("counterfactual_memorization",)]

    conditional = "conditional on these models; each row's own interval is over pairs of them"
    found: list[Measurement | NotMeasured] = [
        _with_control(
            "counterfactual_memorization",
            "share of tokens",
            _memorized_share(train),
            _memorized_share(heldout) if heldout else None,
            f"accuracy with minus without the row; {conditional}",
        ),
        _with_control(
            "memorized_nats",
            "nats per token",
            _memorized_nats(train),
            _memorized_nats(heldout) if heldout else None,
            f"fall of the loss that took the row itself; {conditional}",
        ),
        _with_control(
            "learned_nats",
            "nats per token",
            _learned_nats(train),
            None,
            f"fall of the loss since the base that other rows brought; {conditional}",
        ),
    ]
    share, bounds = share_estimate(is_clear_D, train.groups)
    contrasts = {}
    if heldout is not None:
        control = share_estimate(_memorized_share(heldout)[0] > threshold, heldout.groups)
        contrasts["heldout"] = difference_of_shares((share, bounds), control)
    found.append(
        Measurement(
            "memorized_rows",
            share,
            "share of rows",
            num_groups,
            "group",
            bounds,
            contrasts,
            f"beyond what {CHANCE:.0%} of rows that nobody trained on reach; {conditional}",
        )
    )
    return found


# Of each row a value and its weight, with its group
_Weighted = tuple[np.ndarray, np.ndarray, Sequence[str]]


def _memorized_share(read: PairStatistics) -> _Weighted:
    return read.memorized_PD.mean(axis=0), np.ones(len(read.rows)), read.groups


def _memorized_nats(read: PairStatistics) -> _Weighted:
    with_D, without_D = read.nats_P2D.mean(axis=0)
    return (without_D - with_D) * read.num_tokens_D, read.num_tokens_D, read.groups


def _learned_nats(read: PairStatistics) -> _Weighted:
    without_D = read.nats_P2D.mean(axis=0)[1]
    return (read.base_nats_D - without_D) * read.num_tokens_D, read.num_tokens_D, read.groups


def _with_control(
    name: str, unit: str, train: _Weighted, heldout: _Weighted | None, note: str
) -> Measurement:
    own = ratio_estimate(*train)
    contrasts = {}
    if heldout is not None:
        contrasts["heldout"] = Contrast(*difference_of_ratios(train, heldout))
    return Measurement(
        name, own.value, unit, len(set(train[2])), "group", own.interval, contrasts, note
    )
