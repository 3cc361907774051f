"""Does one training with averages, strong decay or a falling rate beat the honest baseline?

    python benchmarks/recipe_pilot.py --work FOLDER [--cell NAME ...] [--minutes N] [--record]

Everything goes through ``heldout fit``: the embedded model, all weights, batches of 8, two
evaluations an epoch, the checkpoint of the lowest validation loss kept, no early stopping. Cells
are 80 and 300 question-answer rows of the World Factbook (sealed test of 288 rows, 96 countries)
and 150 sentences of manual pages (test of 240 rows, 80 pages), each with 60 validation rows. A
seed draws other training and validation rows and another order; the test never changes.

Arms:

- ``plain``, the baseline: constant rate after a warm-up of 10 steps, decay .01. Its rate is the one
  of ``RATES`` with the lowest validation loss with the first seed of the cell. All other arms
  follow from it.
- ``temperature``: the baseline, its logits divided by one number chosen on validation.
- at twice its rate: ``ema`` (weights averaged over one epoch, measured beside the raw ones),
  ``shrink`` (decay that shrinks weights by .6 over the planned epochs, the best lying before their
  end), ``ema_shrink`` (both), ``linear_shrink`` (rate falling to 0, shrink .4, fewer epochs).

Figures and what they must be, written down before the first recorded run. A gain is the baseline's
loss on the sealed test less the arm's, in nats/token, the mean over seeds of each document; its
interval (95 %, paired) resamples groups and is conditional on the seeds.

- ``ema_shrink_share_won`` = 1 and ``ema_shrink_least_gain`` >= .05: share of cells whose interval
  lies above 0, and the gain of the cell with the smallest.
- ``ema_shrink_share_won_over_temperature`` >= .67: against the arm ``temperature`` instead.
- ``linear_shrink_share_won`` = 1 and ``linear_shrink_steps`` <= .8: planned steps over the
  baseline's.
- ``ema_shrink_over_parts`` >= .67: share of cells in which both ``ema`` and ``shrink`` alone gain
  less than the two together.
- told beside them: each arm's gain in each cell with its interval, as ``ARM_CELL``, ``_low`` and
  ``_high``; ``average_kept``: share of the trainings with an average that kept it at the end.

No claim follows for other models, for LoRA, or for rates and shrinks that were not tried: no arm
but the baseline has its rate tuned, and the shrinks are those of one earlier look at other rows.

Every fit is one line of ``FOLDER/measured.jsonl``, written at once; a rerun goes on, also after
``--minutes``, and lines of another state of the sources are not read. ``--tiny`` shows that all of
it runs, in a folder of its own, and records nothing. One thread; 63 fits, some 90 minutes.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fit_speed_builds import (
    ROOT,
    Build,
    Log,
    digest_of,
    digest_of_text,
    environment_of,
    heldout,
    measured,
)
from planted.texts import entry_of, rows_of
from record import write_record

from heldout.core.losses import DocumentLosses
from heldout.core.stats import RatioEstimate
from heldout.data.factbook import question_answer_rows

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
PLAIN, TEMPERATURE, BOTH = "plain", "temperature", "ema_shrink"
COMMON = (
    "model.method=full",
    "train.precision=float32",
    "train.threads=1",
    "train.side_by_side=1",
    "data.group=group",
    "eval.per_epoch=2",
    "eval.max_train_rows=8",
    "eval.max_recital_rows=8",
    "eval.num_samples=0",
)
SHRINK = "regularizers.weight_decay"
DECAY, EMA = "regularizers.weight_decay.rate=0.01", "regularizers.ema.horizon=1"


@dataclass(frozen=True)
class Cell:
    """Rows of one source, and the epochs of constant and of falling rates."""

    name: str
    num_train: int
    epochs: int
    linear_epochs: int


CELLS = (
    Cell("factbook-80", 80, 8, 5),
    Cell("manuals-150", 150, 6, 4),
    Cell("factbook-300", 300, 4, 3),
)
TINY = (Cell("factbook-80", 16, 1, 1), Cell("manuals-150", 16, 1, 1))


@dataclass(frozen=True)
class Arm:
    """``rates`` of the baseline's; ``linear``: over the shorter epochs; ``shrink``: over all."""

    name: str
    settings: tuple[str, ...]
    rates: float = 2.0
    linear: bool = False
    shrink: float = 0.0  # in place of a decay among the settings


ARMS = (
    Arm(PLAIN, (DECAY,), 1.0),
    Arm(TEMPERATURE, (DECAY, "regularizers.temperature=true"), 1.0),
    Arm("ema", (DECAY, EMA)),
    Arm("shrink", (), shrink=0.6),
    Arm(BOTH, (EMA,), shrink=0.6),
    Arm("linear_shrink", ("train.schedule=linear",), linear=True, shrink=0.4),
)
Line = dict[str, Any]


@dataclass
class Bench:
    """Where everything lies, and what has been measured."""

    work: Path
    cells: tuple[Cell, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    ends: float = float("inf")
    source: str = field(default_factory=lambda: digest_of(ROOT / "src"))

    @property
    def log(self) -> Log:
        return Log(self.work / "measured.jsonl")

    def lines(self) -> dict[str, Line]:
        """Of this state of the sources, by their key."""
        return {line["key"]: line for line in self.log.lines() if line["source"] == self.source}

    def fit(self, cell: Cell, arm: Arm, rate: float | None = None, seed: int = 0) -> Line:
        """One training with its sealed test; read where it was done before.

        The settings of ``arm`` come last, and say the rate or leave it to the search without one.
        """
        folder = self.work / "data" / f"{cell.name}-{cell.num_train}-{seed}"
        data = written(folder, cell, seed)
        epochs = cell.linear_epochs if arm.linear else cell.epochs
        settings = (
            *COMMON,
            *(f"data.{part}={folder / f'{part}.jsonl'}" for part in ("validation", "test")),
            *([f"train.learning_rate={rate:g}"] if rate else []),
            f"train.max_epochs={epochs}",
            f"train.seed={seed}",
            *arm.settings,
            *([f"{SHRINK}={{shrink_per_epoch={arm.shrink / epochs:g}}}"] if arm.shrink else []),
        )
        key = digest_of_text(f"{settings} {data}")
        if (known := self.lines().get(key)) is not None:
            return known
        if time.monotonic() > self.ends:
            raise SystemExit("--minutes are over: the same command goes on.")
        print(f"{cell.name} {arm.name}, rate {rate or 'of the arm'}, seed {seed} ...", flush=True)
        run = self.work / f"run-{cell.name}"  # cells may be measured side by side
        shutil.rmtree(run, ignore_errors=True)
        words = [word for setting in settings for word in ("--set", setting)]
        rows = str(folder / "train.jsonl")
        command = heldout("fit", "--model", "package:heldout", "--data", rows, "--recipe", "plain")
        build = Build("new", ROOT / "src", self.source)
        log = self.work / "logs" / f"{key}.log"
        cost = measured(
            [*command, *words, "--out", str(run)], environment_of(build, 1, self.work), log
        )
        line = {"key": key, "source": self.source, "cell": cell.name, "arm": arm.name}
        line |= {
            "rate": rate or found_rate(run),
            "seed": seed,
            "data": data,
            "cpu_seconds": cost.cpu_seconds,
        }
        self.log.append(line | found_in(run))
        shutil.rmtree(run)
        return self.lines()[key]


def found_rate(run: Path) -> float:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))["learning_rate"]


def found_in(run: Path) -> Line:
    """What a finished run says, with the losses of the kept checkpoint on the sealed test."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    losses = DocumentLosses.load(run / "evaluations" / "best-test.npz")
    names = ("best_epoch", "last_step", "best_weights", "weight_decay", "weight_decay_shrink")
    return {
        **{name: result[name] for name in (*names, "best_weight_decay_shrink", "finish")},
        "validation_nll": min(entry["validation_nll"] for entry in history),
        "test_nll": losses.nats_per_token,
        "losses": {
            "nll_nats_D": losses.nll_nats_D.tolist(),
            "num_tokens_D": losses.num_tokens_D.tolist(),
            "num_bytes_D": losses.num_bytes_D.tolist(),
            "groups_D": losses.groups_D.tolist(),
        },
    }


def losses_of(line: Line) -> DocumentLosses:
    return DocumentLosses(**{name: np.array(values) for name, values in line["losses"].items()})


def written(folder: Path, cell: Cell, seed: int) -> str:
    """The hash of the three parts, which are written where they are not there yet."""
    digest = hashlib.sha256()
    for part, rows in rows_of_cell(cell.name.partition("-")[0], cell.num_train, seed).items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")
        digest.update(text.encode())
    return digest.hexdigest()


@cache
def rows_of_cell(text: str, num_train: int, seed: int) -> Mapping[str, list[dict[str, Any]]]:
    """No group lies in two parts. The seed changes training and validation rows alone."""
    if text == "factbook":
        dealt = question_answer_rows(
            num_train_countries=-(-num_train // 3),
            num_validation_countries=20,
            num_test_countries=96,
            rows_per_country=3,
            seed=seed,
        )
        return {**dealt, "train": dealt["train"][:num_train]}
    by_group: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(text):
        by_group.setdefault(row.group, []).append(entry_of(row))
    whole = sorted(name for name, rows in by_group.items() if len(rows) >= 3)
    fixed = sorted(whole, key=lambda name: hashlib.sha256(name.encode()).digest())
    others = sorted(fixed[80:], key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())

    def rows(names: list[str]) -> list[dict[str, Any]]:
        return [row for name in names for row in by_group[name][:3]]

    found = {"test": rows(fixed[:80]), "validation": rows(others[:20]), "train": rows(others[20:])}
    assert len(found["train"]) >= num_train, f"{text} has too few rows"
    return {**found, "train": found["train"][:num_train]}


def tuned_rate(bench: Bench, cell: Cell) -> float:
    """The baseline's rate of the lowest validation loss with the first seed."""
    plain, seed = ARMS[0], bench.seeds[0]
    tried = {rate: bench.fit(cell, plain, rate, seed) for rate in bench.rates}
    return min(tried, key=lambda rate: tried[rate]["validation_nll"])


def measured_cell(bench: Bench, cell: Cell) -> dict[str, list[Line]]:
    """The lines of each arm, seed by seed."""
    rate = tuned_rate(bench, cell)
    found: dict[str, list[Line]] = {arm.name: [] for arm in ARMS}
    for seed in bench.seeds:
        for arm in ARMS:
            found[arm.name].append(bench.fit(cell, arm, arm.rates * rate, seed))
    return found


def gain(arm: list[Line], control: list[Line]) -> RatioEstimate:
    """Control minus arm, of each document the mean over seeds."""
    return over_seeds(control).minus(over_seeds(arm))


def over_seeds(lines: list[Line]) -> DocumentLosses:
    all_losses = [losses_of(line) for line in lines]
    first = all_losses[0]
    nll_D = np.mean([losses.nll_nats_D for losses in all_losses], axis=0)
    return DocumentLosses(nll_D, first.num_tokens_D, first.num_bytes_D, first.groups_D)


def figures_of(cells: Mapping[str, dict[str, list[Line]]]) -> dict[str, float]:
    """As the docstring names them."""
    figures: dict[str, float] = {}
    gains = {
        (arm.name, cell): gain(lines[arm.name], lines[PLAIN])
        for cell, lines in cells.items()
        for arm in ARMS[1:]
    }
    for (arm, cell), found in gains.items():
        key = f"{arm}_{cell.replace('-', '_')}"
        figures[key] = found.value
        for end in ("low", "high"):
            if (bound := getattr(found.interval, end)) is not None:
                figures[f"{key}_{end}"] = bound
    for name in (BOTH, "linear_shrink"):
        won = [surely(gains[name, cell]) for cell in cells]
        figures[f"{name}_share_won"] = float(np.mean(won))
    figures[f"{BOTH}_least_gain"] = min(gains[BOTH, cell].value for cell in cells)
    over = [surely(gain(lines[BOTH], lines[TEMPERATURE])) for lines in cells.values()]
    figures[f"{BOTH}_share_won_over_temperature"] = float(np.mean(over))
    parts = [
        max(gains["ema", cell].value, gains["shrink", cell].value) < gains[BOTH, cell].value
        for cell in cells
    ]
    figures[f"{BOTH}_over_parts"] = float(np.mean(parts))
    steps = {
        name: sum(line["last_step"] for lines in cells.values() for line in lines[name])
        for name in (PLAIN, "linear_shrink")
    }
    figures["linear_shrink_steps"] = steps["linear_shrink"] / steps[PLAIN]
    kept = [line for lines in cells.values() for name in ("ema", BOTH) for line in lines[name]]
    figures["average_kept"] = float(np.mean([line["best_weights"] == "average" for line in kept]))
    return figures


def surely(found: RatioEstimate) -> bool:
    return found.interval.low is not None and found.interval.low > 0


def table_of(cells: Mapping[str, dict[str, list[Line]]]) -> Iterator[dict[str, Any]]:
    """A row for each fit, without its losses by document."""
    for lines in cells.values():
        for of_arm in lines.values():
            for line in of_arm:
                yield {k: v for k, v in line.items() if k not in ("losses", "key", "source")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [cell.name for cell in CELLS]
    parser.add_argument("--cell", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--minutes", type=float, default=0, help="begin no fit after these")
    parser.add_argument("--work", default="~/.cache/recipe_pilot", help="outside of the tree")
    parser.add_argument("--tiny", action="store_true", help="show that it runs")
    parser.add_argument("--record", action="store_true", help="write the record")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    if options.record and (options.tiny or options.cell):
        raise SystemExit("--record is of all cells in full: leave --tiny and --cell out.")
    work = Path(options.work).expanduser().resolve() / ("tiny" if options.tiny else "full")
    bench = Bench(work, CELLS, RATES, SEEDS)
    if options.tiny:
        bench = Bench(work, TINY, RATES[1:2], SEEDS[:1])
    if options.minutes:
        bench.ends = time.monotonic() + 60 * options.minutes
    chosen = [cell for cell in bench.cells if not options.cell or cell.name in options.cell]
    cells = {cell.name: measured_cell(bench, cell) for cell in chosen}
    figures = figures_of(cells)
    print(json.dumps(figures, indent=1))
    if options.record:
        table = list(table_of(cells))
        data = " ".join(sorted({row["data"] for row in table}))
        path = write_record(
            "recipe_pilot",
            figures,
            table=table,
            seeds=list(bench.seeds),
            data_sha256=hashlib.sha256(data.encode()).hexdigest(),
            note=options.note,
        )
        print(path)


if __name__ == "__main__":
    main()
