"""Forecasts of measured runs: all laws fitted to a part, judged on the rest, and the choice.

HELDOUT_REAL_DATA=FOLDER python benchmarks/law_rollout.py

The choice and its correction are made by rolled-out forecasts within the fitted part alone, along
the axis of the split; the runs that the table is judged on have no part in them.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import write_record

from heldout.jobs.planning.fitted_law import all_laws
from heldout.scaling.fit import fit
from heldout.scaling.rollout import choose, forecast_error, log_errors, rollouts
from heldout.scaling.table import read_runs

# Reference: the best error of the laws in earlier refits of these runs, and its law.
SPLITS = {
    "compute": ("below 1e20 FLOPs", lambda runs: runs.flops < 1e20, 0.091),
    "unique": ("up to 1.5e9 unique tokens", lambda runs: runs.U <= 1.5e9, 0.059),
    "epochs": ("up to 40 epochs", lambda runs: runs.epochs <= 40, 0.150),
}


def one_sided(biases: np.ndarray) -> bool:
    return len(biases) > 1 and bool((biases > 0).all() or (biases < 0).all())


# From the biases of the rolled-out forecasts, ordered by cut-off, to a shift of the log loss.
RULES: dict[str, Callable[[np.ndarray], float]] = {
    "last_if_one_sided": lambda b: b[-1] if one_sided(b) else 0.0,
    "median_if_one_sided": lambda b: np.median(b) if one_sided(b) else 0.0,
    "least_if_one_sided": lambda b: b[np.abs(b).argmin()] if one_sided(b) else 0.0,
    "last_always": lambda b: b[-1],
    "median_always": np.median,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("HELDOUT_REAL_DATA", "../shared/data"))
    parser.add_argument("--delta", type=float, default=0.03)
    options = parser.parse_args()
    path = Path(options.data) / "datablations_c4_runs.csv"
    runs, laws = read_runs(path).runs, all_laws()
    figures: dict[str, float] = {}
    table = []
    for delta in dict.fromkeys((options.delta, 1e-3)):
        tag = "" if delta == options.delta else f"_delta_{delta:g}"
        for axis, (words, part, reference) in SPLITS.items():
            inside = part(runs)
            train, test = runs[inside], runs[~inside]
            made = rollouts(laws, train, delta=delta, axes=(axis,))
            choice = choose(laws, train, made, (axis,))
            fits = {law.name: fit(law, train, delta=delta) for law in laws}
            errors = {name: forecast_error(each, test) for name, each in fits.items()}
            for name, error in errors.items():
                figures[f"{axis}_{name}{tag}"] = error
            fitted = fits[choice.law]
            correction = choice.corrections.get(axis, 1.0)
            forecast = forecast_error(fitted, test, correction)
            biases = np.array([rollout.biases[choice.law] for rollout in made])
            for rule, shift_of in RULES.items():
                factor = float(np.exp(shift_of(biases)))
                figures[f"{axis}_{rule}{tag}"] = forecast_error(fitted, test, factor)
            figures[f"{axis}_chosen{tag}"] = forecast
            figures[f"{axis}_chosen_uncorrected{tag}"] = errors[choice.law]
            figures[f"{axis}_best{tag}"] = min(errors.values())
            table.append(
                {
                    "split": axis,
                    "fitted": words,
                    "delta": delta,
                    "num_train": len(train),
                    "num_test": len(test),
                    "errors": errors,
                    "chosen": choice.law,
                    "correction": correction,
                    "rolled_biases": [rollout.biases for rollout in made],
                    "biases": {
                        name: float(log_errors(each, test).mean()) for name, each in fits.items()
                    },
                    "chosen_error": forecast,
                    "reference": reference,
                    "scores": choice.scores,
                    "reason": choice.reason,
                }
            )
            print(axis, delta, choice.law, round(forecast, 4), reference, flush=True)
        everything = {law.name: fit(law, runs, delta=delta).rms for law in laws}
        table.append({"split": "none", "fitted": "all", "delta": delta, "errors": everything})
        figures |= {f"all_{name}{tag}": error for name, error in everything.items()}
    written = write_record(
        "law_rollout",
        figures,
        table=table,
        seeds=[],
        data_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        command="python benchmarks/law_rollout.py",
        note="RMS of log loss on 296 measured C4 runs (datablations). Seedless: nothing is drawn. "
        "delta is the Huber loss's; the choice and the correction saw the fitted part only. The "
        "rule of correction was chosen on other splits (law_correction), but the wish for one came "
        "after all laws had been seen to err to one side here.",
    )
    print(json.dumps(figures, indent=1), written)


if __name__ == "__main__":
    main()
