"""Shares of answers that are likelier after their own prompts, on losses that are known."""

import numpy as np
import pytest

from heldout.core.facts import Facts
from heldout.core.measurement import NotMeasured
from heldout.core.other_prompts import OtherPrompts
from heldout.core.probe import Evidence
from heldout.diagnosis.features import FEATURES
from heldout.probes.swapped_answers import SwappedAnswers


def read(num, likelier):
    """``likelier`` of ``num`` answers are likelier after their own prompt."""
    own_D = np.where(np.arange(num) < likelier, 1.0, 3.0)
    return OtherPrompts(own_D, np.full(num, 2.0), np.array([f"g{n}" for n in range(num)]))


def measured(train, heldout):
    evidence = Evidence({}).adding(train, "train").adding(heldout, "test")
    (found,) = SwappedAnswers().measure(evidence)
    return found


def test_half_swapped_answers_lack_half_of_what_true_ones_have():
    found = measured(read(100, 70), read(100, 90))  # by chance 50: 20 of 40 are missing
    assert found.value == 0.7
    assert found.contrasts["heldout"].difference == pytest.approx(-0.2)
    by_name = {found.name: found}
    assert FEATURES["swapped_share"](by_name, Facts()) == pytest.approx(0.5)
    low = -found.contrasts["heldout"].interval.high / 0.4
    assert FEATURES["swapped_surely"](by_name, Facts()) == pytest.approx(low)
    assert 0.1 < low < 0.5


def test_true_answers_lack_nothing_surely():
    found = measured(read(100, 88), read(100, 90))
    assert FEATURES["swapped_surely"]({found.name: found}, Facts()) < 0


def test_a_base_that_does_not_see_prompts_says_nothing():
    found = measured(read(100, 10), read(100, 55))
    assert isinstance(found, NotMeasured)
    assert "55% of the held-out answers" in found.reason


def test_too_few_rows_say_nothing():
    assert isinstance(measured(read(12, 1), read(100, 90)), NotMeasured)
    assert isinstance(measured(read(100, 10), read(12, 12)), NotMeasured)


def test_nothing_is_known_without_prompts_or_base():
    (found,) = SwappedAnswers().measure(Evidence({}))
    assert isinstance(found, NotMeasured)
    assert FEATURES["swapped_share"]({}, Facts()) is None
