"""Does the search for a learning rate lose its winner when it stops trials early?

Trials at five rates, a factor of 3 apart, train the embedded model on passages of real text to
their end, with the losses of the validation rows at each evaluation. From these the searches are
replayed that begin at each of the three middle rates, with and without stopping, by the functions
that ``heldout fit`` uses. Texts, their number, the method and the seed differ from cell to cell.

Criterion, set before the recorded run: ``pruned_winner_share`` <= 0.05, the share of searches in
which the trial that had the lowest loss at its end was stopped. It is told beside
``pruned_winner_share_usual_start`` (searches from the usual rate alone), the most that a wrong
choice cost in nats per token at the trials' end, and the share of the trials' steps that stopping
saves, by two and by four evaluations an epoch.

    python benchmarks/rate_search.py --state FOLDER

FOLDER keeps each cell; the same command goes on after a break.
"""

import argparse
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from real_text import passages
from record import write_record

from heldout.core.interrupt import stop_on_interrupt
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import load_recipe
from heldout.core.run import Run
from heldout.core.run_files import RateTrial
from heldout.jobs.kit.beginning import Beginning
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import load_parts, read_parts
from heldout.jobs.kit.rate_trial import try_rate
from heldout.jobs.kit.run_folder import start_run
from heldout.jobs.kit.target import Target
from heldout.lm.quiet import quiet_libraries
from heldout.search.learning_rate import FACTOR, search_learning_rate
from heldout.search.lost_trials import further_fall, has_lost

MODEL = "package:heldout"
USUAL = 1e-3  # where the search begins for a model of this size
EXPONENTS = range(-2, 3)
STARTS = range(-1, 2)
WARMUP = 10
PER_EPOCH = (2, 4)
METHODS = ("full", "default")
ROWS = (110, 160)
SEEDS = range(2, 12)  # 0 and 1 were looked at when the rule was made


@dataclass(frozen=True)
class Curve:
    """A trial that came to its end: steps and losses of its evaluations, the base first."""

    rate: float
    steps: list[int]
    losses: list[DocumentLosses] | None  # None where it diverged

    @property
    def end(self) -> float:
        return math.inf if self.losses is None else self.losses[-1].nats_per_token


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--dry-run", action="store_true", help="print, write no record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    state = Path(options.state)
    state.mkdir(parents=True, exist_ok=True)
    table, data = [], hashlib.sha256()
    for seed in options.seeds:
        for place, rows in enumerate(ROWS):
            method = METHODS[(seed + place) % len(METHODS)]
            texts = list(passages(rows, seed=seed, words=(5, 16)))
            data.update("\0".join(texts).encode())
            curves = curves_of(state / f"{method}-{rows}-{seed}", texts, method, seed)
            for per_epoch in PER_EPOCH:
                for start in STARTS:
                    found = replayed(curves, start, per_epoch)
                    table.append({"seed": seed, "rows": rows, "method": method, **found})
            print(seed, rows, json.dumps(figures_of(table)), flush=True)
    figures = figures_of(table)
    print(json.dumps(figures, indent=1))
    if not options.dry_run:
        note = "1 thread; replayed from trials that were trained to their end"
        path = write_record(
            "rate_search",
            figures,
            table=table,
            seeds=options.seeds,
            data_sha256=data.hexdigest(),
            note=note,
        )
        print(path)


def curves_of(folder: Path, texts: list[str], method: str, seed: int) -> list[Curve]:
    """The trials of one cell, trained unless ``folder`` has them."""
    folder.mkdir(exist_ok=True)
    found = []
    for exponent in EXPONENTS:
        path = folder / f"{exponent}.npz"
        if not path.exists():
            train(folder, texts, method, seed, exponent)
        with np.load(path) as kept:
            rest = (kept["num_tokens"], kept["num_bytes"], kept["groups"])
            losses = [DocumentLosses(nll_D, *rest) for nll_D in kept["nll_TD"]]
            steps = kept["steps"].tolist()
            found.append(Curve(rate_at(exponent), steps, losses if kept["ended"] else None))
    return found


def train(folder: Path, texts: list[str], method: str, seed: int, exponent: int) -> None:
    """One trial to its end, and what its evaluations measured."""
    settings = (
        f"eval.per_epoch={max(PER_EPOCH)}",
        f"train.warmup_steps={WARMUP}",
        "train.batch_size=4",
        "train.micro_batch_size=4",
        f"train.seed={seed}",
        f"data.seed={seed}",
        "search.epochs=1",
        "search.max_steps=1000",
        "data.test_share=0",
    )
    recipe = load_recipe(method, settings)
    with tempfile.TemporaryDirectory() as place, quiet_libraries(), stop_on_interrupt() as request:
        data = Path(place) / "data.jsonl"
        data.write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
        parts = read_parts(str(data), recipe)
        run: Run = start_run(Path(place) / "run", recipe, parts, [], model=MODEL, from_scratch="")
        parts = load_parts(run)
        target = Target.of(MODEL, "")
        context = RunContext(run, target, recipe, parts.texts, Progress(), request)
        rate = rate_at(exponent)
        trial = try_rate(context, rate, None, stops_lost=False)
        kept = Beginning.of(run, rate)
        steps = [logged.step for logged in kept.logged]
        losses = [kept.losses(step) for step in steps]
        partial = folder / f"{exponent}.partial.npz"
        np.savez(
            partial,
            steps=steps,
            nll_TD=np.stack([each.nll_nats_D for each in losses]),
            num_tokens=losses[0].num_tokens_D,
            num_bytes=losses[0].num_bytes_D,
            groups=losses[0].groups_D,
            ended=not trial.diverged,
        )
        partial.rename(folder / f"{exponent}.npz")
        shutil.rmtree(place, ignore_errors=True)


def rate_at(exponent: int) -> float:
    return float(f"{USUAL * FACTOR**exponent:.3g}")


def replayed(curves: list[Curve], start: int, per_epoch: int) -> dict:
    """A search from ``start``, without stopping and with it."""

    def search(stops: bool) -> tuple[float | None, list[RateTrial]]:
        def try_round(rates: Sequence[float], best: RateTrial | None) -> list[RateTrial]:
            return [trial_of(rate, best if stops else None) for rate in rates]

        return search_learning_rate(try_round, start=rate_at(start), max_trials=5)

    def trial_of(rate: float, best: RateTrial | None) -> RateTrial:
        exponent = round(math.log(rate / USUAL, FACTOR))
        if exponent not in EXPONENTS:
            return RateTrial(rate, None, 0)  # off the grid, as if it diverged
        curve = curves[exponent - EXPONENTS[0]]
        steps = curve.steps
        if curve.losses is None:
            return RateTrial(rate, None, steps[-1])
        if best is not None:
            of_best = curves[round(math.log(best.learning_rate / USUAL, FACTOR)) - EXPONENTS[0]]
            assert of_best.losses is not None
            every = max(PER_EPOCH) // per_epoch
            for at in range(every, len(steps) - 1, every):
                more = further_fall(steps[at], steps[-1], WARMUP)
                if more is not None and has_lost(
                    curve.losses[0], curve.losses[at], of_best.losses[-1], more
                ):
                    return RateTrial(rate, curve.losses[at].nats_per_token, steps[at], True)
        return RateTrial(rate, curve.end, steps[-1])

    chosen, whole = search(stops=False)
    stopped_chosen, stopped = search(stops=True)
    winner = next((trial for trial in stopped if trial.learning_rate == chosen), None)
    ends = {trial.learning_rate: trial.loss for trial in whole}
    return {
        "start": rate_at(start),
        "per_epoch": per_epoch,
        "chosen": chosen,
        "chosen_with_stopping": stopped_chosen,
        "winner_was_stopped": winner is None or winner.stopped_early,
        "cost": ends[stopped_chosen] - ends[chosen] if stopped_chosen in ends else 0.0,
        "trials": len(whole),
        "stopped": sum(trial.stopped_early for trial in stopped),
        "steps": sum(trial.steps for trial in whole),
        "steps_with_stopping": sum(trial.steps for trial in stopped),
    }


def figures_of(table: list[dict]) -> dict[str, float]:
    """The main figures; saved steps by the number of evaluations an epoch."""
    usual = [row for row in table if row["start"] == USUAL]
    figures = {
        "num_searches": float(len(table)),
        "pruned_winner_share": share(table),
        "pruned_winner_share_usual_start": share(usual),
        "highest_cost_nats": max(row["cost"] for row in table),
    }
    for per_epoch in PER_EPOCH:
        rows = [row for row in table if row["per_epoch"] == per_epoch]
        kept = sum(row["steps_with_stopping"] for row in rows) / sum(r["steps"] for r in rows)
        figures[f"steps_saved_share_{per_epoch}_evaluations"] = 1 - kept
        figures[f"pruned_winner_share_{per_epoch}_evaluations"] = share(rows)
    return figures


def share(rows: list[dict]) -> float:
    return float(np.mean([row["winner_was_stopped"] for row in rows]))


if __name__ == "__main__":
    main()
