"""The short search that sets the learning rate, because no regularizer makes up for a wrong one.

Rates a factor of 3 apart are tried from a sensible start, in the direction that improves, until
the best rate has a worse neighbor on both sides or the trials are used up.
"""

from collections.abc import Callable, Sequence

from heldout.core.run_files import RateTrial

FACTOR = 3.0
SMALL_MODEL = 20_000_000  # parameters; below, a pretrained model takes the rates of a new one


def start_learning_rate(method: str, num_parameters: int, *, from_scratch: bool = False) -> float:
    """Where to begin: LoRA wants about 10 times the rate of full training (LoRA Without Regret).

    Models from scratch start at 1e-3, the optimum of Kim et al. 2025 (arXiv 2509.14786) for 0.6B
    and 1.4B parameters and a third of that for smaller ones; so do pretrained models under 20M
    parameters. Larger ones start at 3e-5.
    """
    full = 1e-3 if from_scratch or num_parameters < SMALL_MODEL else 3e-5
    return min(1e-3, 10 * full) if method == "lora" else full


def search_learning_rate(
    try_rate: Callable[[float], RateTrial],
    *,
    start: float,
    candidates: Sequence[float] = (),
    max_trials: int = 5,
    known: Sequence[RateTrial] = (),
) -> tuple[float | None, list[RateTrial]]:
    """The rate with the lowest held-out loss, None if all diverged, with all trials.

    A trial that was stopped early counts as worse than any other.

    ``candidates`` are tried all; otherwise rates step from ``start``. ``known`` trials, of an
    interrupted search, are not run again: the path is the same.
    """
    trials: dict[float, RateTrial] = {}
    cached = {f"{trial.learning_rate:.6g}": trial for trial in known}

    def loss(rate: float) -> float:
        if rate not in trials:
            trials[rate] = cached.get(f"{rate:.6g}") or try_rate(rate)
        return trials[rate].loss

    if candidates:
        for rate in candidates:
            loss(rate)
    else:
        exponent = 0
        while len(trials) < max_trials:
            untried = [
                e for e in (exponent, exponent + 1, exponent - 1) if _rate(start, e) not in trials
            ]
            if not untried:
                break
            loss(_rate(start, untried[0]))
            by_exponent = {
                e: loss(_rate(start, e)) for e in range(-12, 13) if _rate(start, e) in trials
            }
            exponent = min(by_exponent, key=lambda e: (by_exponent[e], e))
    best = min(trials, key=lambda rate: (loss(rate), rate))
    return (None if trials[best].diverged else best), list(trials.values())


def _rate(start: float, exponent: int) -> float:
    return float(f"{start * FACTOR**exponent:.3g}")
