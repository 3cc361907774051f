import subprocess
import sys

import numpy as np
import pytest

from heldout.core.measurement import Interval, Measurement, NotMeasured, measurement_from_json
from heldout.core.stats import (
    clopper_pearson,
    difference_of_ratios,
    holm,
    paired_difference,
    ratio_estimate,
    student_t_p_value,
    student_t_quantile,
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
    for trial in range(300):
        estimate = ratio_estimate(*draws(rng, num_groups), seed=trial)
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
        ratio_estimate(rng.normal(size=40), np.ones(40), np.arange(40), seed=t).p_value < 0.05
        for t in range(400)
    )
    assert 8 <= rejected <= 34, rejected  # 20 expected, standard deviation 4.4


def test_no_difference_is_exactly_zero():
    same = paired_difference([1.0, 2.0], [1.0, 2.0], [1, 1], ["a", "b"])
    assert (same.value, same.interval.low, same.interval.high, same.p_value) == (0, 0, 0, 1)


def test_one_group_gives_no_interval():
    with pytest.raises(ValueError, match="at least 2 groups"):
        ratio_estimate([1.0, 2.0], [1, 1], ["a", "a"])


def test_difference_of_independent_means_matches_welch():
    # By hand: variances 2.5 / 5 and 14 / 6, so an error of 1.6833 on 6.97 degrees of freedom,
    # where t is 2.366.
    value, interval = difference_of_ratios(
        ([1, 2, 3, 4, 5], np.ones(5), np.arange(5)),
        ([2, 4, 6, 8, 10, 12], np.ones(6), np.arange(6)),
    )
    assert value == pytest.approx(-4)
    assert interval.low == pytest.approx(-4 - 2.366 * 1.6833, abs=0.005)
    assert interval.high == pytest.approx(-4 + 2.366 * 1.6833, abs=0.005)


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
    code = "import sys, heldout.cli.main, heldout.core.stats; print('scipy' in sys.modules)"
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
    half = clopper_pearson(5, 10)
    assert (round(half.low, 3), round(half.high, 3)) == (0.187, 0.813)
    none = clopper_pearson(0, 59)
    assert (none.low, round(none.high, 4)) == (0.0, round(1 - 0.025 ** (1 / 59), 4))
    assert clopper_pearson(59, 59).low == pytest.approx(1 - none.high)
    with pytest.raises(ValueError, match="trials"):
        clopper_pearson(3, 2)
