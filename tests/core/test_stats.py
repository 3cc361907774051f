import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from heldout.core.distributions import exact_bounds, student_t_p_value, student_t_quantile
from heldout.core.holm import holm
from heldout.core.measurement import Interval, Measurement, NotMeasured, measurement_from_json
from heldout.core.shares import difference_of_shares, share_estimate
from heldout.core.stats import (
    difference_of_paired_ratios,
    difference_of_ratios,
    error_over_groups,
    paired_difference,
    ratio_estimate,
)


def draws(rng, num_groups):
    """Documents of unequal length in groups that share an effect; the true ratio is 3."""
    per_group = rng.integers(1, 4, num_groups)
    groups = np.repeat(np.arange(num_groups), per_group)
    tokens = rng.integers(5, 60, len(groups))
    effect = rng.normal(0, 0.4, num_groups)[groups]
    nll = tokens * (3 + effect + rng.gamma(2, 0.2, len(groups)) - 0.4)
    return nll, tokens, groups


@pytest.mark.parametrize("num_groups", [12, 30])
def test_interval_covers_the_truth_at_its_nominal_rate(num_groups):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        estimate = ratio_estimate(*draws(rng, num_groups))
        hits += estimate.interval.low <= 3 <= estimate.interval.high
    # 95 % of 300 is 285 with a standard deviation of 3.8.
    assert 271 <= hits <= 297, hits


def test_rows_of_one_group_are_not_independent():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20)
    ones = np.ones(20)
    once = ratio_estimate(values, ones, np.arange(20))
    repeated = ratio_estimate(np.repeat(values, 10), np.ones(200), np.repeat(np.arange(20), 10))
    assert repeated.value == pytest.approx(once.value)
    assert repeated.interval.low == pytest.approx(once.interval.low)
    pretended = ratio_estimate(np.repeat(values, 10), np.ones(200), np.arange(200))
    width = repeated.interval.high - repeated.interval.low
    assert pretended.interval.high - pretended.interval.low < width / 2


def test_pairing_removes_what_documents_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 100)
    before, after = hard + 10, hard + 9.9 + rng.normal(0, 0.05, 100)
    paired = paired_difference(after, before, np.ones(100), np.arange(100))
    assert paired.interval.high < 0
    assert paired.p_value < 0.01


def test_false_positive_rate_of_the_p_value():
    rng = np.random.default_rng(3)
    rejected = sum(
        ratio_estimate(rng.normal(size=40), np.ones(40), np.arange(40)).p_value < 0.05
        for t in range(400)
    )
    assert 8 <= rejected <= 34, rejected  # 20 expected, standard deviation 4.4


def test_no_difference_is_exactly_zero():
    same = paired_difference([1.0, 2.0], [1.0, 2.0], [1, 1], ["a", "b"])
    assert (same.value, same.interval.low, same.interval.high, same.p_value) == (0, 0, 0, 1)


def test_one_group_gives_no_interval():
    with pytest.raises(ValueError, match="at least 2 groups"):
        ratio_estimate([1.0, 2.0], [1, 1], ["a", "a"])


def test_difference_of_independent_means_is_welch_where_nothing_is_skewed():
    rng = np.random.default_rng(0)
    first, second = rng.normal(10, 0.1, 9), rng.normal(11, 0.2, 14)
    value, interval = difference_of_ratios(
        (first, np.ones(9), np.arange(9)), (second, np.ones(14), np.arange(14))
    )
    found = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert value == pytest.approx(first.mean() - second.mean())
    # The reach is a little longer where samples are skewed, as these are by chance.
    assert found.low - 0.1 < interval.low < found.low
    assert found.high < interval.high < found.high + 0.1


def test_equal_groups_without_skewness_give_student():
    values = np.array([-3.0, -2, -1, 0, 1, 2, 3, 0.0])
    found = paired_difference(values + 0.5, np.zeros(8), np.ones(8), np.arange(8))
    expected = scipy.stats.ttest_1samp(values + 0.5, 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))


def test_error_and_degrees_of_freedom_against_their_matrices():
    rng = np.random.default_rng(0)
    for _ in range(20):
        num = int(rng.integers(2, 12))
        weights = rng.lognormal(size=num)
        weights /= weights.sum()
        own = np.eye(num) - np.outer(np.ones(num), weights)
        form = own.T @ np.diag(weights**2) @ own  # the sum of squared parts is v' form v
        ratios = rng.normal(size=num)
        parts = weights * (ratios - weights @ ratios)
        error, freedom = error_over_groups(parts, weights)
        assert freedom == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))
        expected = (ratios @ form @ ratios) * (weights**2).sum() / np.trace(form)
        assert error**2 == pytest.approx(expected)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("null", [0.7, 1.0, 1.9, 2.6])
def test_the_p_value_is_the_level_at_which_the_interval_touches(signed, null):
    values = np.random.default_rng(1).lognormal(0, 0.9, 12)
    options = {"null": null, "signed": signed}
    p_value = ratio_estimate(values, np.ones(12), np.arange(12), **options).p_value
    interval = ratio_estimate(
        values, np.ones(12), np.arange(12), level=1 - p_value, **options
    ).interval
    assert min(abs(interval.low - null), abs(interval.high - null)) < 1e-6


@pytest.mark.parametrize("num_groups", [8, 15, 30])
def test_skewed_losses_are_covered(num_groups):
    rng = np.random.default_rng(2)
    hits = [
        interval.low <= np.exp(0.5) <= interval.high
        for interval in (
            ratio_estimate(
                rng.lognormal(size=num_groups), np.ones(num_groups), range(num_groups)
            ).interval
            for _ in range(1000)
        )
        if not interval.is_withheld
    ]
    assert np.mean(hits) > 0.925  # bootstrap-t intervals: .89, .91, .92
    assert len(hits) > 800


def test_too_few_groups_give_no_interval_and_no_claim():
    for num in (2, 7):
        found = ratio_estimate(np.arange(1.0, num + 1), np.ones(num), np.arange(num))
        assert found.interval.is_withheld
        assert found.p_value == 1
        assert found.value == (num + 1) / 2
    assert not ratio_estimate(np.arange(1.0, 9), np.ones(8), np.arange(8)).interval.is_withheld


def test_one_group_that_holds_half_gives_no_interval():
    rng = np.random.default_rng(0)
    for num in (8, 30, 300):
        groups = np.concatenate([np.zeros(num), np.arange(num)])
        values = rng.normal(3, 1, len(groups))
        assert ratio_estimate(values, np.ones(len(groups)), groups).interval.is_withheld
        assert share_estimate(values > 3, groups)[1].is_withheld


def test_all_weight_in_one_group_gives_no_interval():
    weights = np.array([5.0] + [0.0] * 11)
    found = ratio_estimate(np.arange(12.0), weights, np.arange(12))
    assert found.interval.is_withheld
    same = (np.arange(12.0), weights)
    assert difference_of_paired_ratios(same, same, np.arange(12)).interval.is_withheld


def test_withheld_intervals_spread_and_survive_json():
    given, withheld = (0.5, Interval(0.4, 0.6)), (0.5, Interval.withheld())
    for sides in ((given, withheld), (withheld, given)):
        contrast = difference_of_shares(*sides)
        assert contrast.interval.is_withheld
        assert contrast.p_value == 1
    assert withheld[1].moved(times=-2, plus=1).is_withheld
    measured = Measurement("x", 1.0, "nats", 3, "row", withheld[1], {"base": contrast}, "note")
    entry = measured.to_json()
    assert (entry["interval"]["low"], entry["contrasts"]["base"]["interval"]["high"]) == (
        None,
        None,
    )
    json.dumps(entry, allow_nan=False)
    assert measurement_from_json(entry) == measured


def test_a_share_stays_between_0_and_1_and_counts_rows_that_agree_as_one():
    groups = np.repeat(np.arange(20), 5)
    none = share_estimate(np.zeros(100), groups)[1]
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 20), abs=0.01))
    every = share_estimate(np.ones(100), groups)[1]
    assert (every.low, every.high) == (pytest.approx(1 - none.high), 1)
    agree = np.repeat(np.arange(20) < 3, 5)
    assert share_estimate(agree, groups)[1].high == pytest.approx(
        exact_bounds(3, 20, 0.95)[1], abs=0.01
    )
    mixed = np.tile([True, False, False, False, False], 20)
    width = share_estimate(mixed, groups)[1]
    low, high = exact_bounds(20, 100, 0.95)
    assert width.high - width.low == pytest.approx(high - low, rel=0.2)


def test_a_difference_of_shares_stays_within_1():
    share = share_estimate(np.ones(12), np.arange(12))
    other = share_estimate(np.zeros(12), np.arange(12))
    contrast = difference_of_shares(share, other)
    assert contrast.difference == 1
    assert contrast.interval.high == 1
    assert "difference of shares" in contrast.interval.method
    # Beyond the base, whose held-out rows happened to hold more.
    base = difference_of_shares(other, share_estimate(np.arange(12) < 1, np.arange(12)))
    twice = difference_of_shares(
        (contrast.difference, contrast.interval), (base.difference, base.interval)
    )
    assert twice.interval.low >= -1
    assert twice.interval.high == twice.difference == 1


@pytest.mark.parametrize(
    ("freedom", "expected"), [(4, 2.7764), (8, 2.3060), (20, 2.0860), (120, 1.9799)]
)
def test_student_t_quantiles_of_the_tables(freedom, expected):
    assert student_t_quantile(0.975, freedom) == pytest.approx(expected, rel=2e-3)


def test_student_t_quantile_between_whole_degrees_of_freedom():
    # By the series of the incomplete beta function; 2 degrees of freedom have 4.303.
    assert student_t_quantile(0.975, 1.05) == pytest.approx(11.36, abs=0.005)
    assert student_t_quantile(0.975, 1) == pytest.approx(12.706, abs=0.0005)
    assert student_t_quantile(0.975, 2) == pytest.approx(4.3027, abs=0.00005)


def test_far_tail_of_student_t():
    assert student_t_p_value(50, 3) == pytest.approx(1.76e-5, rel=0.01)
    # The quantile and the tail are each other's inverse, far out too.
    for freedom in (1.05, 3, 7.5, 200):
        for p_value in (1e-12, 1e-6, 0.05, 0.9):
            distance = student_t_quantile(1 - p_value / 2, freedom)
            assert student_t_p_value(distance, freedom) == pytest.approx(p_value, rel=1e-3)


def test_the_command_line_loads_no_scipy():
    code = (
        "import sys, heldout.cli.main, heldout.core.stats; heldout.cli.main.command_line();"
        "print('scipy' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_holm_against_statsmodels():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for num in (1, 2, 6, 25):
        p_values = dict(enumerate(rng.random(num) ** 3))
        expected = multipletests(list(p_values.values()), method="holm")[1]
        assert list(dict(sorted(holm(p_values).items())).values()) == pytest.approx(expected)


def test_holm_against_a_worked_example():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_a_nan_is_not_a_measurement():
    with pytest.raises(ValueError, match="NaN"):
        Measurement("x", float("nan"), "nats", 1, "row")
    with pytest.raises(ValueError, match="low exceeds high"):
        Interval(2, 1)


def test_measurements_survive_json():
    estimate = ratio_estimate([1.0, 2, 4], [1, 1, 1], [0, 1, 2])
    measured = Measurement(
        "x", 1.0, "nats", 3, "row", estimate.interval, {"base": estimate.as_contrast()}, "note"
    )
    assert measurement_from_json(measured.to_json()) == measured
    missing = NotMeasured("y", "no test part")
    assert measurement_from_json(missing.to_json()) == missing


def test_exact_interval_of_a_share():
    # Tables of Clopper and Pearson: 5 of 10, and the end of none of 59.
    assert [round(end, 3) for end in exact_bounds(5, 10, 0.95)] == [0.187, 0.813]
    low, high = exact_bounds(0, 59, 0.95)
    assert (low, round(high, 4)) == (0.0, round(1 - 0.025 ** (1 / 59), 4))
    assert exact_bounds(59, 59, 0.95)[0] == pytest.approx(1 - high)
