"""Should a law's forecasts be shifted by the error of its rolled-out forecasts, and how?

HELDOUT_REAL_DATA=FOLDER python benchmarks/law_correction.py

Runs of seven tables are cut at up to five points along compute and tokens, and of an eighth, with
repeated data, along compute, unique tokens and epochs too. Below each cut the law is chosen and
fitted as ``heldout plan laws --axis`` does it; above it every rule of correction is judged. Of the
eighth table only those runs are used that ``law_rollout`` fits to along the same axis, not those
that it is judged on there.
"""

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from law_rollout import RULES, SPLITS
from record import write_record

from heldout.jobs.planning.fitted_law import all_laws
from heldout.scaling.fit import fit
from heldout.scaling.rollout import AXES, choose, cutoffs, log_errors, rollouts
from heldout.scaling.runs import Runs
from heldout.scaling.table import read_runs

DELTAS = (0.03, 1e-3)  # as law_rollout; the tool's default
RESAMPLES = 10_000
GADRE = ("c4_original", "rpj", "rw_original")
REPEATED = "datablations_c4_runs.csv"
TABLES = {
    "gemstones_hot": ("gemstones_hot.csv", "params_active_precise", "tokens", "final_loss", ""),
    "gemstones_cool_end": (
        "gemstones_cool_end.csv",
        "params_active_precise",
        "tokens",
        "final_loss",
        "",
    ),
    "olmo": ("olmo_ladder_final.csv", "N_params", "total_tokens", "c4_loss", ""),
    "kyotakano": ("kyotakano_llm_example_df.csv", "N", "D", "loss", ""),
    **{
        f"gadre_{name}": (
            "gadre_overtraining_104.csv",
            "N_params",
            "D_tokens",
            "loss_c4_val",
            f"train_dataset={name}",
        )
        for name in GADRE
    },
}


@dataclass(frozen=True)
class Case:
    """One cut: the chosen law, its rolled-out biases, and its log errors beyond the cut."""

    table: str
    axis: str
    cutoff: float
    law: str
    biases: np.ndarray
    errors: np.ndarray

    def log_ratio(self, shift: float) -> float:
        """Log of the error with the shift over the error without it."""
        before, after = (np.sqrt((e**2).mean()) for e in (self.errors, self.errors - shift))
        return float(np.log(after / before))


def tables(folder: Path) -> Iterator[tuple[str, Runs, tuple[str, ...]]]:
    """Name, runs, and the axes along which to cut them."""
    for name, (file, N, D, loss, where) in TABLES.items():
        column, _, value = where.partition("=")
        with (folder / file).open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if not where or row[column] == value]
        rows = [row for row in rows if row[N] and row[D] and row[loss]]
        tokens = np.array([float(row[D]) for row in rows])
        sizes, losses = (np.array([float(row[key]) for row in rows]) for key in (N, loss))
        yield name, Runs(N=sizes, D=tokens, U=tokens.copy(), loss=losses), ("compute", "unique")
    repeated = read_runs(folder / REPEATED).runs
    for axis, (_, part, _) in SPLITS.items():
        yield f"datablations_{axis}", repeated[part(repeated)], (axis,)


def cases(folder: Path, delta: float) -> Iterator[Case]:
    for name, runs, axes in tables(folder):
        laws = [law for law in all_laws() if runs.is_repeated or not law.KNOWS_REPETITION]
        for axis in axes:
            values = AXES[axis][1](runs)
            for cutoff in cutoffs(values):
                train, test = runs[values <= cutoff], runs[values > cutoff]
                made = rollouts(laws, train, delta=delta, axes=(axis,))
                if not made:
                    continue
                choice = choose(laws, train, made, (axis,))
                law = next(law for law in laws if law.name == choice.law)
                biases = np.array([rollout.biases[law.name] for rollout in made])
                errors = log_errors(fit(law, train, delta=delta), test)
                yield Case(name, axis, cutoff, law.name, biases, errors)
                print(name, axis, f"{cutoff:.3g}", law.name, np.round(biases, 4), flush=True)


def judged(found: list[Case], rule: Callable[[np.ndarray], float]) -> dict[str, float]:
    """Of the cases that the rule changes; the interval resamples families of tables."""
    changed = [(case, float(rule(case.biases))) for case in found]
    ratios = [(case.table, case.log_ratio(shift)) for case, shift in changed if shift]
    families: dict[str, list[float]] = {}
    for table, ratio in ratios:
        families.setdefault(table.partition("_")[0], []).append(ratio)
    means = np.array([np.mean(each) for each in families.values()])
    drawn = np.random.default_rng(0).choice(means, (RESAMPLES, len(means))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "changed": len(ratios),
        "better": sum(ratio < 0 for _, ratio in ratios),
        "error_ratio": float(np.exp(np.mean([ratio for _, ratio in ratios]))),
        "error_ratio_over_families": float(np.exp(means.mean())),
        "error_ratio_over_families_low": float(np.exp(low)),
        "error_ratio_over_families_high": float(np.exp(high)),
        "worst": float(np.exp(max(ratio for _, ratio in ratios))),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("HELDOUT_REAL_DATA", "../shared/data"))
    folder = Path(parser.parse_args().data)
    found = {delta: list(cases(folder, delta)) for delta in DELTAS}
    figures: dict[str, float] = {}
    for delta, each in found.items():
        tag = "" if delta == DELTAS[0] else f"_delta_{delta:g}"
        figures[f"cases{tag}"] = len(each)
        for name, rule in RULES.items():
            figures |= {f"{name}_{key}{tag}": value for key, value in judged(each, rule).items()}
    files = sorted({file for file, *_ in TABLES.values()} | {REPEATED})
    digest = hashlib.sha256(b"".join((folder / file).read_bytes() for file in files)).hexdigest()
    written = write_record(
        "law_correction",
        figures,
        table=[
            {
                "table": case.table,
                "delta": delta,
                "axis": case.axis,
                "cutoff": case.cutoff,
                "law": case.law,
                "biases": case.biases.tolist(),
                "num_test": len(case.errors),
                "bias": float(case.errors.mean()),
                "error": float(np.sqrt((case.errors**2).mean())),
                "log_ratio": {
                    name: case.log_ratio(rule(case.biases)) for name, rule in RULES.items()
                },
            }
            for delta, each in found.items()
            for case in each
        ],
        seeds=[],
        data_sha256=digest,
        command="python benchmarks/law_correction.py",
        note="error_ratio: geometric mean, over the cuts that a rule changes, of the error of the "
        "chosen law's forecasts with the correction over that without; below 1 it helps. Families "
        "are tables of one source, each counted once. Cuts of one table overlap.",
    )
    print(json.dumps(figures, indent=1), written)


if __name__ == "__main__":
    main()
