"""Numbers, durations and names as a reader wants to see them."""

import pytest

from heldout.core.measurement import Contrast, Interval
from heldout.report import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.23456, "1.235"), (-0.5, "−0.500"), (-0.0001, "0.000"), (None, "–")],
)
def test_number(value, shown):
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.31, "+0.310"), (-0.31, "−0.310"), (0.0, "0.000"), (0.0004, "0.000")]
)
def test_signed(value, shown):
    assert words.signed(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(1, "100"), (0.9999, "100"), (0.46, "46"), (0.0996, "10"), (0.046, "4.6"), (0.00023, "0.023")],
)
def test_fine_percent(share, shown):
    assert words.fine_percent(share) == f"{shown}\u00a0%"


def test_count():
    assert words.count(1, "row") == "1 row"
    assert words.count(2, "row") == "2 rows"
    assert words.count(1, "group of rows") == "1 group of rows"
    assert words.count(2, "group of rows") == "2 groups of rows"


def test_signed_percent():
    assert words.signed_percent(-0.0104) == "−1.0\u00a0%"
    assert words.signed_percent(0.5) == "+50.0\u00a0%"
    assert words.signed_percent(-0.0001) == "0.0\u00a0%"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(41.7, "42 s"), (252, "4 min 12 s"), (7500, "2 h 05 min"), (59.6, "1 min 00 s")],
)
def test_duration(seconds, shown):
    assert words.duration(seconds) == shown


@pytest.mark.parametrize(("value", "shown"), [(2.5, "2.5"), (3.0, "3"), (0, "0"), (10.0, "10")])
def test_epoch(value, shown):
    assert words.epoch(value) == shown


def test_date():
    assert words.date("2026-03-14T10:22:05+0000") == "14 March 2026, 10:22"
    assert words.date("yesterday") == "yesterday"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test_nll_best", "Test loss, kept (best)"),
        ("generalization_gap_base", "Generalization gap, base model"),
        ("general_nll_fixed_epochs", "General loss, fixed epochs, no regularization"),
        ("exposure", "Exposure"),
    ],
)
def test_quantity(name, shown):
    assert words.quantity(name) == shown


def test_perplexity_of_a_hopeless_model_is_a_number():
    assert words.perplexity(3.0) == "20.1"
    assert words.perplexity(800.0) == "5.18e+21"


def test_last_name_of_a_path():
    assert words.last_name("/home/me/data/train.jsonl") == "train.jsonl"
    assert words.last_name("org/model") == "org/model"


def test_a_withheld_interval_in_words():
    withheld = Interval.withheld()
    assert words.interval(withheld) == "too few groups for an interval"
    assert words.with_level(withheld) == "too few groups for an interval"
    assert words.with_level(Interval(1, 2)) == "95\u00a0% interval 1.000 to 2.000"
    assert words.contrast_line(Contrast(-0.3, withheld, 1.0)) == (
        "−0.300 (too few groups for an interval)"
    )
