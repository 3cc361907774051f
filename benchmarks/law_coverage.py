"""Do 95 % intervals hold the truth 95 % of the time? 200 tables of runs that follow a known law.

python benchmarks/law_coverage.py [--simulations 200]
"""

import argparse
import hashlib
import json

import numpy as np
from record import write_record

from heldout.core.shares import share_estimate
from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.fit import fit
from heldout.scaling.intervals import bootstrap, percentile_ranges, profile
from heldout.scaling.law import Law
from heldout.scaling.lovelace import Lovelace
from heldout.scaling.runs import Runs

CHINCHILLA = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}
LOVELACE = {**CHINCHILLA, "P": 0.05, "delta": 0.6, "kappa": 0.8}


def one_epoch() -> Runs:
    N = np.repeat(np.geomspace(2e7, 3e9, 8), 6)
    D = N * np.tile(np.geomspace(3, 300, 6), 8)
    return Runs.of(N, D, np.ones(48))


def repeated() -> Runs:
    N, D, epochs = (
        axis.ravel()
        for axis in np.meshgrid(
            np.geomspace(2e7, 3e9, 6), np.geomspace(2e9, 2e11, 4), [1.0, 4.0, 30.0]
        )
    )
    return Runs.of(N, D, np.ones(72), D / epochs)


CASES: list[tuple[str, Law, dict[str, float], Runs, str]] = [
    ("normal", Chinchilla(), CHINCHILLA, one_epoch(), "normal"),
    ("heavy_tails", Chinchilla(), CHINCHILLA, one_epoch(), "t3"),
    ("repeated", Lovelace(), LOVELACE, repeated(), "normal"),
]


def draw(law: Law, values: dict[str, float], runs: Runs, kind: str, seed: int) -> Runs:
    """Log losses with noise of 1 % standard deviation."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=len(runs)) if kind == "normal" else rng.standard_t(3, len(runs))
    noise = noise / np.sqrt(3) if kind == "t3" else noise
    loss = law.predict(runs, values) * np.exp(0.01 * noise)
    return Runs.of(runs.N, runs.D, loss, runs.U)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    table, all_held = [], {"profile": [], "bootstrap": []}
    for case, law, values, design, kind in CASES:
        held: dict[str, dict[str, list[bool]]] = {"profile": {}, "bootstrap": {}}
        for seed in range(options.simulations):
            found = fit(law, draw(law, values, design, kind, seed), num_starts=4)
            resampled = bootstrap(found, options.resamples, seed)
            for method, ranges in (
                ("profile", profile(found)),
                ("bootstrap", percentile_ranges(found, resampled)),
            ):
                for name, value in values.items():
                    held[method].setdefault(name, []).append(ranges[name].holds(value))
        for method, by_name in held.items():
            for name, hits in by_name.items():
                share, bounds = share_estimate(hits, np.arange(len(hits)))
                table.append(
                    {
                        "case": case,
                        "law": law.name,
                        "method": method,
                        "parameter": name,
                        "coverage": share,
                        "low": bounds.low,
                        "high": bounds.high,
                        "nominal_inside": bounds.low <= 0.95 <= bounds.high,
                    }
                )
            shares = [float(np.mean(hits)) for hits in by_name.values()]
            all_held[method] += shares
            figures[f"{case}_{method}"] = float(np.mean(shares))
            figures[f"{case}_{method}_least"] = min(shares)
            print(case, method, {n: round(float(np.mean(h)), 3) for n, h in by_name.items()})
    for method, shares in all_held.items():
        figures[f"{method}_coverage"] = float(np.mean(shares))
        figures[f"{method}_least"] = min(shares)
    figures["simulations"] = options.simulations
    truth = json.dumps([CHINCHILLA, LOVELACE], sort_keys=True)
    written = write_record(
        "law_coverage",
        figures,
        table=table,
        seeds=list(range(options.simulations)),
        data_sha256=hashlib.sha256(truth.encode()).hexdigest(),
        command=f"python benchmarks/law_coverage.py --simulations {options.simulations}",
        note="Share of simulations whose 95 % interval holds the true value. Synthetic runs: 48 of "
        "one epoch, or 72 of 1 to 30 epochs; noise of 1 %, normal or Student's t with 3 degrees.",
    )
    print(json.dumps(figures, indent=1), written)


if __name__ == "__main__":
    main()
