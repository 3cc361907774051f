"""Do averaged weights and a planned shrink make the recipe ``full`` better, its search included?

    python benchmarks/full_recipe.py --work FOLDER [--cell NAME ...] [--record]

The cells of ``recipe_pilot.py`` with seeds that it has not seen, everything through
``heldout fit``. Arms:

- ``honest``: the pilot's baseline at the rate that it found in all three cells (5e-4): constant
  after a warm-up, decay .01, the best of two checkpoints an epoch;
- ``before``: the recipe ``full`` as it was: rate found by search, decay 1, early stopping;
- ``after``: the same with weights averaged over one epoch and, in place of that decay, one that
  shrinks weights by 2 over the 20 planned epochs, of which early stopping leaves some 3 to 6.

Figures and what they must be, written down before the first run. A gain is the loss on the sealed
test of the other arm less that of ``after``, in nats/token, the mean over seeds of each document;
its interval (95 %, paired) resamples groups and is conditional on the seeds.

- ``after_share_won_over_before`` = 1 and ``after_share_won_over_honest`` >= .67: share of cells
  whose interval lies above 0; ``after_share_lost`` = 0: of cells whose interval against either of
  them lies below 0.
- ``after_time`` <= 1.25: CPU seconds of all its fits over those of ``before``.
- told beside them: each gain in each cell with its interval, as ``OVER_CELL``.

The recipe ``full`` becomes ``after`` if all of these hold. One thread; 18 fits, some 20 minutes.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from recipe_pilot import CELLS, DECAY, EMA, Arm, Bench, Cell, Line, gain, surely, table_of
from record import write_record

SEEDS = (3, 4)
BEFORE_DECAY = "regularizers.weight_decay={rate=1.0}"
STOPPING = "regularizers.early_stopping={patience=3}"
SEARCHED = (STOPPING, "train.max_epochs=20")
HONEST = Arm("honest", (DECAY, "train.learning_rate=5e-4"))
BEFORE = Arm("before", (*SEARCHED, BEFORE_DECAY))
AFTER = Arm("after", (*SEARCHED, "regularizers.weight_decay={shrink_per_epoch=0.1}", EMA))
ARMS = (HONEST, BEFORE, AFTER)


def measured_cell(bench: Bench, cell: Cell) -> dict[str, list[Line]]:
    """The lines of each arm, seed by seed."""
    return {arm.name: [bench.fit(cell, arm, seed=seed) for seed in bench.seeds] for arm in ARMS}


def figures_of(cells: Mapping[str, dict[str, list[Line]]]) -> dict[str, float]:
    """As the docstring names them."""
    figures: dict[str, float] = {}
    lost = []
    for other in ("before", "honest"):
        won = []
        for cell, lines in cells.items():
            found = gain(lines["after"], lines[other])
            low, high = found.interval.low, found.interval.high
            assert low is not None, f"{cell} has too few groups"
            assert high is not None, f"{cell} has too few groups"
            key = f"{other}_{cell.replace('-', '_')}"
            figures |= {key: found.value, f"{key}_low": low, f"{key}_high": high}
            won.append(surely(found))
            lost.append(high < 0)
        figures[f"after_share_won_over_{other}"] = float(np.mean(won))
    figures["after_share_lost"] = float(np.mean(lost))
    seconds = {
        name: sum(line["cpu_seconds"] for lines in cells.values() for line in lines[name])
        for name in ("before", "after")
    }
    figures["after_time"] = seconds["after"] / seconds["before"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = [cell.name for cell in CELLS]
    parser.add_argument("--cell", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--work", default="~/.cache/full_recipe", help="outside of the tree")
    parser.add_argument("--record", action="store_true", help="write the record")
    options = parser.parse_args()
    if options.record and options.cell:
        raise SystemExit("--record is of all cells: leave --cell out.")
    bench = Bench(Path(options.work).expanduser().resolve(), CELLS, (), SEEDS)
    chosen = [cell for cell in CELLS if not options.cell or cell.name in options.cell]
    cells = {cell.name: measured_cell(bench, cell) for cell in chosen}
    figures = figures_of(cells)
    print(json.dumps(figures, indent=1))
    if options.record:
        table: list[dict[str, Any]] = list(table_of(cells))
        data = " ".join(sorted({row["data"] for row in table}))
        path = write_record(
            "full_recipe",
            figures,
            table=table,
            seeds=list(SEEDS),
            data_sha256=hashlib.sha256(data.encode()).hexdigest(),
        )
        print(path)


if __name__ == "__main__":
    main()
