"""How often a log alone names a rise that is none, and misses one that is there.

Made-up courses of a held-out loss: levels, falls that level off, and falls that turn into a rise,
each with normal jitter, 400 draws a setting, judged as ``heldout diagnose LOG`` judges them. The
floor of misses is a judge who knows the size of the jitter and the place of the turn.

Criteria, set before the recorded run: ``worst_false_alarms`` <= 1 of 40 (0.025; with 400 draws a
setting that has it shows up to 0.045); a rise of 0.1 at jitter 0.02 named in 38 of 40 with 10 and
with 20 evaluations (``named_10``, ``named_20`` >= 0.95, the least over shapes).

    python benchmarks/log_noise.py
"""

import numpy as np
from record import write_record
from scipy.stats import norm

from heldout.diagnosis.jitter import rise_beyond_jitter

NUM_DRAWS = 400
NUMS = (2, 3, 4, 6, 8, 10, 20, 40)
JITTERS = (0.005, 0.02, 0.05)
RISE, LARGE, JITTER = 0.1, 0.3, 0.02
SEED = 20261130
# Logged training losses: falling, with as much jitter as the held-out loss.
NUM_TRAINING = 60


def without_rise(num: int) -> dict[str, np.ndarray]:
    """Courses that end at their lowest, or stay at a level."""
    place = np.linspace(0, 1, num)
    return {
        "level": np.full(num, 2.0),
        "slow fall": 2 + 0.3 * np.exp(-2 * place),
        "fall": 2 + np.exp(-5 * place),
        "steep fall": 2 + np.exp(-12 * place),
    }


def with_rise(num: int, rise: float) -> dict[str, np.ndarray]:
    """Courses that end ``rise`` over their lowest."""
    place = np.linspace(0, 1, num)
    after = np.clip((place - 0.4) / 0.6, 0, 1)
    early = np.where(place < 0.2, 2 + 1.5 * (0.2 - place), 2 + rise * (place - 0.2) / 0.8)
    return {
        "down and up": np.where(place < 0.5, 2.5 - place, 2 + rise * (place - 0.5) / 0.5),
        "early turn": early,
        "rounded": 2 + rise * ((place - 0.4) / 0.6) ** 2,
        "steep fall, then up": 2 + np.exp(-10 * place) + rise * after,
    }


def share_named(
    curve: np.ndarray, jitter: float, rng: np.random.Generator, in_training: float | None = None
) -> float:
    """Of noisy copies, those whose last loss is said to lie above the lowest.

    ``in_training`` is the jitter of logged training losses, where it is not the same.
    """
    training = 3 - 0.01 * np.arange(NUM_TRAINING)
    named = [
        rise_beyond_jitter(
            curve + rng.normal(0, jitter, len(curve)),
            training + rng.normal(0, jitter if in_training is None else in_training, NUM_TRAINING),
        )
        > 0
        for _ in range(NUM_DRAWS)
    ]
    return float(np.mean(named))


def named_by_who_knows(curve: np.ndarray) -> float:
    """By a judge who knows jitter and turn, at 2 false alarms of 100: no test names more."""
    tail = curve[int(np.argmin(curve)) :]
    signal = float(np.sqrt(((tail - tail.mean()) ** 2).sum())) / JITTER
    return float(norm.sf(norm.isf(0.02) - signal))


def main() -> None:
    rng = np.random.default_rng(SEED)
    false_alarms = {
        f"{name}, {num} evaluations, jitter {jitter}": share_named(curve, jitter, rng)
        for num in NUMS
        for jitter in JITTERS
        for name, curve in without_rise(num).items()
    }
    smooth = {
        f"{name}, {num} evaluations, jitter {jitter}, none in training": share_named(
            curve, jitter, rng, 0.0
        )
        for num in NUMS
        for jitter in JITTERS
        for name, curve in without_rise(num).items()
    }
    named, large = (
        {
            num: {
                shape: share_named(curve, JITTER, rng)
                for shape, curve in with_rise(num, rise).items()
            }
            for num in nums
        }
        for rise, nums in ((RISE, (4, 6, 8, 10, 20, 40)), (LARGE, (3, 4, 6, 8, 10)))
    )
    rows = [
        {"what": "no rise", "setting": setting, "named": share}
        for setting, share in (false_alarms | smooth).items()
    ]
    for rise, found in ((RISE, named), (LARGE, large)):
        rows += [
            {"what": f"rise of {rise}", "setting": f"{shape}, {num} evaluations", "named": share}
            for num, shares in found.items()
            for shape, share in shares.items()
        ]
    rows += [
        {"what": "who knows jitter and turn", "setting": f"{shape}, {num} evaluations",
         "named": named_by_who_knows(curve)}
        for num in (10, 20)
        for shape, curve in with_rise(num, RISE).items()
    ]  # fmt: skip
    written = write_record(
        "log_noise",
        {
            "num_draws": NUM_DRAWS,
            "worst_false_alarms": max(false_alarms.values()),
            "worst_false_alarms_smooth_training": max(smooth.values()),
            "mean_false_alarms": float(np.mean(list(false_alarms.values()))),
            "named_10": min(named[10].values()),
            "named_20": min(named[20].values()),
        },
        table=rows,
        seeds=[SEED],
        data_sha256="",
        note="made-up courses; nothing was trained",
    )
    print(written)


if __name__ == "__main__":
    main()
