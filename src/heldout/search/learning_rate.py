"""The short search that sets the learning rate, because no regularizer makes up for a wrong one.

Rates a factor of 3 apart are tried from a sensible start, in the direction that improves, until
the best rate has a worse neighbor on both sides or the trials are used up. They are chosen in
rounds: no rate of a round depends on how another of it went, so that whether these trials go side
by side changes nothing.
"""

import math
from collections.abc import Callable, Sequence

from heldout.core.run_files import RateTrial

FACTOR = 3.0
SMALL_MODEL = 20_000_000  # parameters; below, a pretrained model takes the rates of a new one
AT_ONCE = 2  # rates of a round, at most

# (rates of a round, the best trial of earlier rounds) -> their trials, in the same order
TryRound = Callable[[Sequence[float], RateTrial | None], Sequence[RateTrial]]


def start_learning_rate(method: str, num_parameters: int, *, from_scratch: bool = False) -> float:
    """Where to begin: LoRA wants about 10 times the rate of full training (LoRA Without Regret).

    Models from scratch start at 1e-3, the optimum of Kim et al. 2025 (arXiv 2509.14786) for 0.6B
    and 1.4B parameters and a third of that for smaller ones; so do pretrained models under 20M
    parameters. Larger ones start at 3e-5.
    """
    full = 1e-3 if from_scratch or num_parameters < SMALL_MODEL else 3e-5
    return min(1e-3, 10 * full) if method == "lora" else full


def search_learning_rate(
    try_round: TryRound,
    *,
    start: float,
    candidates: Sequence[float] = (),
    max_trials: int = 5,
) -> tuple[float | None, list[RateTrial]]:
    """The rate with the lowest held-out loss, None if all diverged, with all trials.

    A trial that was stopped early counts as worse than any other.
    """
    trials: list[RateTrial] = []
    while rates := next_round(trials, start=start, candidates=candidates, max_trials=max_trials):
        trials += try_round(rates, best_of(trials))
    best = min(trials, key=lambda trial: (trial.loss, trial.learning_rate))
    return (None if best.diverged else best.learning_rate), trials


def next_round(
    trials: Sequence[RateTrial],
    *,
    start: float,
    candidates: Sequence[float] = (),
    max_trials: int = 5,
) -> tuple[float, ...]:
    """The rates to try after ``trials``, all those of earlier rounds; empty at the search's end.

    ``candidates`` are tried all, in their order. Otherwise first ``start`` and the next higher
    rate, then the neighbors of the best one that are untried.
    """
    tried = {rate_name(trial.learning_rate): trial.loss for trial in trials}
    if candidates:
        untried: dict[str, float] = {}
        for rate in candidates:
            if rate_name(rate) not in tried:
                untried.setdefault(rate_name(rate), rate)
        return tuple(untried.values())[:AT_ONCE]
    wanted: tuple[int, ...] = (0, 1)
    if trials:
        exponents = [e for e in range(-12, 13) if rate_name(_rate(start, e)) in tried]
        best = min(exponents, key=lambda e: (tried[rate_name(_rate(start, e))], e))
        wanted = (best + 1, best - 1)
    rates = [_rate(start, exponent) for exponent in wanted]
    fresh = [rate for rate in rates if rate_name(rate) not in tried]
    return tuple(fresh[: max(0, max_trials - len(trials))])


def best_of(trials: Sequence[RateTrial]) -> RateTrial | None:
    """The one of the lowest loss at its end; None where none came to it."""
    ended = [trial for trial in trials if math.isfinite(trial.loss)]
    return min(ended, key=lambda trial: (trial.loss, trial.learning_rate), default=None)


def rate_name(rate: float) -> str:
    """Equal for rates that are the same to six digits."""
    return f"{rate:.6g}"


def _rate(start: float, exponent: int) -> float:
    return float(f"{start * FACTOR**exponent:.3g}")
