import math

import pytest

from heldout.core.run_files import RateTrial
from heldout.search.learning_rate import next_round, search_learning_rate, start_learning_rate


def valley(optimum, diverges_above=math.inf):
    """Held-out loss with its lowest point at ``optimum``, on a logarithmic axis."""
    tried = []

    def try_rate(rate):
        if rate > diverges_above:
            return RateTrial(rate, None, 10)
        return RateTrial(rate, 3 + math.log10(rate / optimum) ** 2, 10)

    def try_round(rates, best):
        tried.extend(rates)
        return [try_rate(rate) for rate in rates]

    return try_round, tried


@pytest.mark.parametrize("optimum", [3e-5, 1e-4, 3e-4, 1e-3, 3e-3])
def test_walks_to_the_optimum_and_brackets_it(optimum):
    try_round, tried = valley(optimum)
    chosen, trials = search_learning_rate(try_round, start=3e-4, max_trials=9)
    assert chosen == pytest.approx(optimum, rel=0.3)
    rates = sorted(trial.learning_rate for trial in trials)
    assert rates[0] < chosen < rates[-1], "a worse neighbor on both sides"
    assert len(tried) == len(set(tried))


def test_respects_the_number_of_trials():
    try_round, tried = valley(1.0)
    search_learning_rate(try_round, start=1e-5, max_trials=4)
    assert len(tried) == 4


def test_divergence_is_the_worst_result_and_not_an_error():
    try_round, _ = valley(1e-2, diverges_above=5e-4)
    chosen, _ = search_learning_rate(try_round, start=3e-4, max_trials=5)
    assert chosen == 3e-4
    try_round, _ = valley(1e-2, diverges_above=0)
    assert search_learning_rate(try_round, start=3e-4, max_trials=3)[0] is None


def test_given_candidates_are_all_tried():
    try_round, tried = valley(1e-3)
    assert search_learning_rate(try_round, start=1, candidates=(1e-4, 1e-3, 1e-2))[0] == 1e-3
    assert tried == [1e-4, 1e-3, 1e-2]


@pytest.mark.parametrize(
    ("optimum", "rounds"),
    [
        (3e-4, [(3e-4, 9e-4), (1e-4,)]),
        (1e-3, [(3e-4, 9e-4), (2.7e-3,)]),
        (1e-5, [(3e-4, 9e-4), (1e-4,), (3.33e-5,), (1.11e-5,), (3.7e-6,)]),
        (1e-2, [(3e-4, 9e-4), (2.7e-3,), (8.1e-3,), (0.0243,)]),
    ],
)
def test_a_round_is_told_the_best_of_those_before_it_alone(optimum, rounds):
    try_round, _ = valley(optimum)
    seen, bests = [], []

    def followed(rates, best):
        seen.append(rates)
        bests.append(best and best.learning_rate)
        return try_round(rates, best)

    search_learning_rate(followed, start=3e-4, max_trials=6)
    assert seen == rounds
    before = [rate for each in rounds[:-1] for rate in each]
    assert bests[0] is None
    assert bests[-1] == min(before, key=lambda rate: abs(math.log10(rate / optimum)))


def test_candidates_go_two_at_a_time_and_equal_ones_once():
    given = (1e-4, 1e-2, 1e-4, 1e-3, 1.0000001e-2)
    rounds, trials = [], []
    while rates := next_round(trials, start=1, candidates=given):
        rounds.append(rates)
        trials += [RateTrial(rate, 1.0, 1) for rate in rates]
    assert rounds == [(1e-4, 1e-2), (1e-3,)]


def test_a_round_has_no_more_than_the_trials_left():
    first = [RateTrial(3e-4, 2.0, 1), RateTrial(9e-4, 1.0, 1)]
    assert next_round([], start=3e-4, max_trials=1) == (3e-4,)
    assert next_round(first, start=3e-4, max_trials=2) == ()
    assert next_round(first, start=3e-4, max_trials=3) == (2.7e-3,)


def test_lora_starts_ten_times_higher():
    assert start_learning_rate("lora", 135_000_000) == pytest.approx(
        10 * start_learning_rate("full", 135_000_000)
    )


def test_large_models_from_scratch_start_at_a_rate_of_pretraining():
    assert start_learning_rate("full", 135_000_000, from_scratch=True) == 1e-3
    assert start_learning_rate("full", 135_000_000) < 1e-4
    assert start_learning_rate("full", 3_000_000) == 1e-3
