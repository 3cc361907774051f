import math

import pytest

from heldout.core.run_files import RateTrial
from heldout.search.learning_rate import search_learning_rate, start_learning_rate


def valley(optimum, diverges_above=math.inf):
    """Held-out loss with its lowest point at ``optimum``, on a logarithmic axis."""
    tried = []

    def try_rate(rate):
        tried.append(rate)
        if rate > diverges_above:
            return RateTrial(rate, None, 10)
        return RateTrial(rate, 3 + math.log10(rate / optimum) ** 2, 10)

    return try_rate, tried


@pytest.mark.parametrize("optimum", [3e-5, 1e-4, 3e-4, 1e-3, 3e-3])
def test_walks_to_the_optimum_and_brackets_it(optimum):
    try_rate, tried = valley(optimum)
    chosen, trials = search_learning_rate(try_rate, start=3e-4, max_trials=9)
    assert chosen == pytest.approx(optimum, rel=0.3)
    rates = sorted(trial.learning_rate for trial in trials)
    assert rates[0] < chosen < rates[-1], "a worse neighbor on both sides"
    assert len(tried) == len(set(tried))


def test_respects_the_number_of_trials():
    try_rate, tried = valley(1.0)
    search_learning_rate(try_rate, start=1e-5, max_trials=4)
    assert len(tried) == 4


def test_divergence_is_the_worst_result_and_not_an_error():
    try_rate, _ = valley(1e-2, diverges_above=5e-4)
    chosen, _ = search_learning_rate(try_rate, start=3e-4, max_trials=5)
    assert chosen == 3e-4
    try_rate, _ = valley(1e-2, diverges_above=0)
    assert search_learning_rate(try_rate, start=3e-4, max_trials=3)[0] is None


def test_given_candidates_are_all_tried():
    try_rate, tried = valley(1e-3)
    assert search_learning_rate(try_rate, start=1, candidates=(1e-4, 1e-3, 1e-2))[0] == 1e-3
    assert tried == [1e-4, 1e-3, 1e-2]


def test_an_interrupted_search_takes_the_same_path():
    first, tried = valley(1e-3)
    whole = search_learning_rate(first, start=3e-4, max_trials=5)
    again, retried = valley(1e-3)
    resumed = search_learning_rate(again, start=3e-4, max_trials=5, known=whole[1][:2])
    assert resumed == whole
    assert retried == tried[2:]


def test_lora_starts_ten_times_higher():
    assert start_learning_rate("lora", 135_000_000) == pytest.approx(
        10 * start_learning_rate("full", 135_000_000)
    )


def test_large_models_from_scratch_start_at_a_rate_of_pretraining():
    assert start_learning_rate("full", 135_000_000, from_scratch=True) == 1e-3
    assert start_learning_rate("full", 135_000_000) < 1e-4
    assert start_learning_rate("full", 3_000_000) == 1e-3
