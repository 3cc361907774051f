"""Does a run take as long as it says, keep to its minutes, and use them well?

    python benchmarks/budget.py [--work FOLDER] [--tiny] [--make | --record]

The embedded model by the default recipe, as ``heldout fit`` is called by a user, on the three data
sets of ``generalization`` with their own validation rows and sealed test.

**Without minutes**: 12 runs, of 50 and of 300 training rows with two seeds each. A run's estimate
is made before its first step, for all trials and epochs that there may be; trials and training end
early. So it is compared by the steps that were taken: of each part the planned seconds, times the
share of its steps that were taken, and added up (``scaled``) against what these parts took by
``status.json``. Reading and checks before are in neither.

**Within minutes**: 2, 5 and 15, on 300 rows of each data set (9 runs), and beside each a plain fit
of that length: no regularization at the usual learning rate, best checkpoint kept, the same minutes
(9 runs). Taken is the time of the whole process on the clock of the wall.

Figures: ``estimate_error_p90``, the second largest of the 12 ``|scaled / taken - 1|``;
``worst_overrun``, the largest time over the minutes given; ``least_used``, the smallest share of
the minutes among runs that did not end by early stopping (1 where all did); ``num_surely_worse``,
runs within minutes whose loss on the sealed test is surely higher (95 %, paired, over groups) than
that of the plain fit beside; ``mean_gain``, of the runs within minutes over them, in nats/token.

Criteria, written down before the first recorded run: ``estimate_error_p90`` <= .25,
``worst_overrun`` <= 1.1, ``least_used`` >= .7, ``num_surely_worse`` = 0.

For quiet cores: work beside that comes and goes is in every figure. Some three hours on one core.
Where a machine has several, start the script once for each, bound to it (``taskset -c 0 python ...
--make``): each takes runs that no other makes, and sees a machine of one core (``side_by_side`` 1).
Runs that have ended are not made again; one that was cut short is begun anew, as its time would be
of two sittings. ``--tiny`` shows in minutes that all of it runs, and records nothing.
"""

import argparse
import hashlib
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from generalization.texts import DATA, parts_folder, sha256_of
from record import write_record

from heldout.core.environment import versions
from heldout.core.job_time import Estimate
from heldout.core.run import Run
from heldout.core.run_files import RateSearch

EMBEDDED = "package:heldout"
ROWS_SEED = 1
MODEL = ("--model", EMBEDDED)
PLAIN = ("--recipe", "plain", "--set", "model.method=full", "--set", "search.max_trials=1")
TINY = ("search.max_steps=4", "train.max_epochs=2", "eval.max_recital_rows=8", "eval.num_samples=0")
WALL = "wall.json"


@dataclass(frozen=True)
class Sizes:
    """Data sets, numbers of rows, seeds and minutes."""

    data: tuple[str, ...]
    rows: tuple[int, ...]
    seeds: tuple[int, ...]
    minutes: tuple[float, ...]
    rows_within: int
    settings: tuple[str, ...] = ()

    @property
    def is_tiny(self) -> bool:
        return bool(self.settings)


WHOLE = Sizes(tuple(DATA), (50, 300), (0, 1), (2, 5, 15), 300)
SMALL = Sizes(("docstrings",), (40,), (0,), (8,), 40, TINY)


@dataclass(frozen=True)
class Fit:
    """One run: where it lies, and what ``heldout fit`` is given beside the data."""

    name: str
    data: str
    num_rows: int
    options: tuple[str, ...]
    minutes: float = 0.0


def main() -> None:
    options = parsed()
    sizes = SMALL if options.tiny else WHOLE
    work = Path(options.work).expanduser().resolve() / ("tiny" if options.tiny else "whole")
    work.mkdir(parents=True, exist_ok=True)
    without, within = fits_of(sizes)
    for fit in sorted([*chain(*within), *without], key=lambda fit: -fit.minutes):
        with suppress(Timeout), FileLock(work / f"{fit.name}.lock", timeout=0):
            finished(work, sizes, fit)
    if options.make:
        return
    timed = [estimate_row(work, sizes, fit) for fit in without]
    kept = [within_row(work, sizes, fit, plain) for fit, plain in within]
    figures = figures_of(timed, kept)
    print(json.dumps(figures, indent=1))
    if options.record:
        data = " ".join(
            sha256_of(parts_folder(work.parent, name, num, ROWS_SEED))
            for name in sizes.data
            for num in sizes.rows
        )
        path = write_record(
            "budget",
            figures,
            table=[*timed, *kept],
            seeds=list(sizes.seeds),
            data_sha256=hashlib.sha256(data.encode()).hexdigest(),
            note=options.note,
        )
        print(path)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", default="~/.cache/budget", help="outside of the tree")
    parser.add_argument("--tiny", action="store_true", help="show that it runs")
    parser.add_argument("--note", default="", help="for the record")
    parser.add_argument("--make", action="store_true", help="make runs, tell no figures")
    parser.add_argument("--record", action="store_true", help="write the record")
    options = parser.parse_args()
    if options.record and options.tiny:
        parser.error("--tiny records nothing: leave it out.")
    return options


def fits_of(sizes: Sizes) -> tuple[list[Fit], list[tuple[Fit, Fit]]]:
    """Those without minutes, and those within with the plain one beside each."""
    without = [
        Fit(f"{name}-{num}-{seed}", name, num, ("--set", f"train.seed={seed}"))
        for name in sizes.data
        for num in sizes.rows
        for seed in sizes.seeds
    ]
    within = []
    for name in sizes.data:
        for minutes in sizes.minutes:
            given = ("--minutes", f"{minutes:g}")
            at = f"{name}-within-{minutes:g}"
            ours = Fit(at, name, sizes.rows_within, given, minutes)
            plain = Fit(f"{at}-plain", name, sizes.rows_within, (*PLAIN, *given), minutes)
            within.append((ours, plain))
    return without, within


def finished(work: Path, sizes: Sizes, fit: Fit) -> tuple[Run, float]:
    """The run, made now where it has not ended before, and the seconds of its process."""
    parts = parts_folder(work.parent, fit.data, fit.num_rows, ROWS_SEED, tiny=sizes.is_tiny)
    folder = work / fit.name
    if not (folder / WALL).exists():
        shutil.rmtree(folder, ignore_errors=True)
        settings = [
            "data.group=group",
            *(f"data.{part}={parts / f'{part}.jsonl'}" for part in ("validation", "test")),
            *sizes.settings,
        ]
        given = [word for setting in settings for word in ("--set", setting)]
        words = [*MODEL, "--data", str(parts / "train.jsonl"), "--out", str(folder)]
        command = [sys.executable, "-m", "heldout", "fit", *words, *given, *fit.options]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = {"seconds": time.monotonic() - began, "versions": versions()}
        (folder / WALL).write_text(json.dumps(wall), encoding="utf-8")
    return Run.open(folder), json.loads((folder / WALL).read_text(encoding="utf-8"))["seconds"]


def estimate_row(work: Path, sizes: Sizes, fit: Fit) -> dict[str, Any]:
    """What was planned for the steps that were taken, beside what they took."""
    run, wall = finished(work, sizes, fit)
    scaled, taken = scaled_estimate(run), taken_by_parts(run)
    row = {
        "run": fit.name,
        "wall_seconds": wall,
        "side_by_side": run.read_json("environment.json")["side_by_side"],
        "planned": planned_of(run).seconds,
        "scaled": scaled,
        "taken": taken,
        "error": abs(sum(scaled.values()) / sum(taken.values()) - 1),
    }
    print(json.dumps(row), flush=True)
    return row


def planned_of(run: Run) -> Estimate:
    return Estimate.from_json(run.read_json("plan.json")["estimate"])


def scaled_estimate(run: Run) -> dict[str, float]:
    """Planned seconds of each part, times the share of its steps that was taken."""
    estimate, result = planned_of(run), run.read_json("result.json")
    found = {part.name: part.seconds for part in estimate.parts}
    units = {part.name: part.units for part in estimate.parts}
    found["training"] *= min(1.0, result["last_step"] / units["training"])
    if "search" in found:
        found["search"] *= search_share(run, units["search"])
    return found


def search_share(run: Run, planned_steps: int) -> float:
    """Of the rounds that were planned, without the trial that is the training's beginning."""
    search = RateSearch.from_json(run.read_json("search.json"))
    at_once = min(2, run.read_json("environment.json")["side_by_side"])
    num = run.recipe.search.max_trials
    a_trial = planned_steps / num
    rounds = [search.trials[i : i + at_once] for i in range(0, len(search.trials), at_once)]
    steps = sum(max(trial.steps for trial in each) for each in rounds) - search.handed_on
    most = math.ceil(num / at_once) * a_trial - (a_trial if search.handed_on else 0)
    return steps / most if most else 0.0


def taken_by_parts(run: Run) -> dict[str, float]:
    return {name: each for name, each in run.status["parts"].items() if name != "data and checks"}


def within_row(work: Path, sizes: Sizes, fit: Fit, beside: Fit) -> dict[str, Any]:
    """How much of the minutes was used, and the loss against the plain fit's."""
    run, wall = finished(work, sizes, fit)
    plain, plain_wall = finished(work, sizes, beside)
    ours, theirs = (each.losses("best", "test") for each in (run, plain))
    assert ours is not None
    assert theirs is not None
    difference = ours.minus(theirs)
    result = run.read_json("result.json")
    (told,) = [c["message"] for c in run.read_json("checks.json") if c["name"] == "time limit"]
    row = {
        "run": fit.name,
        "side_by_side": run.read_json("environment.json")["side_by_side"],
        "share_used": wall / (60 * fit.minutes),
        "plain_share_used": plain_wall / (60 * fit.minutes),
        "stopped_early": "minutes" not in result["stop_reason"],
        "stop_reason": result["stop_reason"],
        "told": told,
        "test_nll": ours.nats_per_token,
        "plain_test_nll": theirs.nats_per_token,
        "difference": difference.value,
        "low": difference.interval.low,
        "high": difference.interval.high,
    }
    print(json.dumps(row), flush=True)
    return row


def figures_of(timed: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]) -> dict[str, float]:
    errors = sorted(row["error"] for row in timed)
    used = [row["share_used"] for row in kept if not row["stopped_early"]]
    return {
        "estimate_error_p90": errors[math.ceil(0.9 * len(errors)) - 1],
        "estimate_error_median": errors[len(errors) // 2],
        "worst_overrun": max(row["share_used"] for row in kept),
        "least_used": min(used, default=1.0),
        "num_stopped_early": float(sum(row["stopped_early"] for row in kept)),
        "num_surely_worse": float(sum(row["low"] > 0 for row in kept)),
        "mean_gain": -sum(row["difference"] for row in kept) / len(kept),
    }


if __name__ == "__main__":
    main()
