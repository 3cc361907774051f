"""What ``heldout fit`` gives on real data beside other trainers and beside a tuned baseline.

    python benchmarks/generalization/run.py --minutes 10 [--cell factbook-50] [--arm fit] [--tiny]
    python benchmarks/generalization/summary.py [--record]

The embedded model is fine-tuned on 50 and 200 documents of three real data sets (``texts.py``) with
three seeds, and on 1,000 with one: nine cells. All arms of a cell and seed have the same training
and validation rows; the sealed test of a data set, 500 rows or more of 80 groups or more, none of
which is trained on, is the same for all. Arms:

- the defaults and published examples of transformers, TRL, axolotl, LLaMA-Factory and unsloth
  (``arms.py`` says from where), each with its last and its best checkpoint of one training;
- ``honest``: a constant rate, the best of 2.5e-4, 5e-4, 1e-3 and 2e-3, after 10 steps of warm-up,
  AdamW with bias correction and decay .01, 8 rows a step, two evaluations an epoch, stopped after
  three epochs without a new low, its best checkpoint by validation; alone and with the temperature
  that validation asks for, the rate chosen again;
- ``fit``: ``heldout fit`` by its default recipe; its time must not be above the honest baseline's;
- named ones, with seed 0: ``recipe:NAME``; ``trials:10``, fit with a search of rate and shrink
  by a Gaussian process in ten trials, within the grid's ends, and ``grid``, 6 rates by 4 decays
  with 3 averages read in each run, on two cells.
- ``fit``, ``honest`` (LoRA of rank 16) and two peers also with SmolLM2-135M on two cells with one
  seed, where ``--cell`` names them: two cells more for these comparators.

Losses are in nats per scored token. An arm is compared with fit's default by the mean over seeds of
each test document's difference, with an interval over groups: conditional on the seeds. A cell is
won where that interval excludes 0 after Holm's correction over the cells of one comparator, best
and last checkpoint being two comparators. Criteria, written down before the first recorded run:

- ``share_cells_won`` >= .88: the least over the peers' arms of the share of cells that fit wins;
- ``share_cells_won_honest`` >= .8 and ``cells_lost_honest`` = 0: cells in which fit is better and
  those in which it is worse than the honest baseline; ``time_share`` <= 1: the largest over cells
  of fit's CPU seconds, search and evaluations included, over those of the baseline's four
  trainings with theirs;
- ``share_cells_won_temperature`` >= .5: the same over the baseline with a temperature;
- ``grid_gain_share`` >= .8: on the grid's cells, the gain of ``trials:10`` over the honest baseline
  as a share of that of the grid's training and average with the lowest validation loss;
  ``cost_share`` <= .4: scored tokens that ``trials:10`` trained over those of the grid's trainings;
- ``memorized_share`` <= .5: training rows that fit's model continues word for word over those of a
  peer's, the largest over peers and cells where the peer's are 10 or more (mean over seeds); "not
  measured" where there are none.

Each finished training is one line of ``FOLDER/lines.jsonl``, written at once; ``--keep`` puts the
lines into ``lines/`` beside this file, to be committed: those count everywhere. A line counts where
its settings, rows and the sources that matter are as they are now. Trainings of equal settings are
made once. A training is begun only where its expected time is left; fit goes on where it was
stopped. ``--tiny`` shows within two quiet minutes that all of it runs, on 40 rows and two steps.

Estimated from one cell, in core hours: 1.4 at 50 documents, 2.4 at 200, 2.2 at 1,000, 1.2 for the
grid. The order gives results soonest: seed 0 of the three sets at 50 documents, half an hour, is
first, then at 200, then the other seeds, then 1,000; ``summary.py --partly`` reads what is there.
``--cell`` and ``--seed`` let several processes share the work.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from generalization.fitting import fitted
from generalization.training import test_documents, trained
from generalization.work import (
    BASE,
    CELLS,
    DEFAULT_ARMS,
    GUESSED_SECONDS,
    SMOLLM2_CELLS,
    Cell,
    Item,
    Place,
    check_arm,
    head_of,
    items_of,
)
from heldout.core.errors import UserError
from heldout.lm.quiet import quiet_libraries

TINY_ARMS = (*DEFAULT_ARMS, "trials:2", "grid")
MODEL_SCALE = 40.0  # of the guesses, for SmolLM2


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    place = place_of(options)
    end = time.monotonic() + 60 * options.minutes
    arms = options.arm or (TINY_ARMS if options.tiny else DEFAULT_ARMS)
    if options.keep:
        print(place.keep() or "There is nothing new to keep.")
        return
    items = items_of(arms, cells_of(options.cell, options.tiny), options.tiny)
    if options.tiny:
        items = [item for item in items if item.seed == 0]
    if options.seed is not None:
        items = [item for item in items if item.seed in options.seed]
    first = True
    while True:
        lines = place.lines()
        missing = not_done(place, items, lines)
        if not missing:
            break
        item, seconds = missing[0], [expected_seconds(each, lines) for each in missing]
        print(
            f"{len(missing)} trainings, about {sum(seconds) / 60:.0f} min left: {item.name} ...",
            flush=True,
        )
        left = end - time.monotonic()
        if left < (1 if first else seconds[0]):
            print(f"    {left:.0f} s of --minutes are left, it takes about {seconds[0]:.0f} s")
            return
        first = False
        try:
            line = measure(place, item, left)
        except UserError as error:
            print(f"    {item.name}: {error}", file=sys.stderr)
            sys.exit(2)
        if line is None:
            print("    stopped; the same command goes on with it")
            return
        place.log.append(line)
        print(f"    {line['seconds']:.1f} s of CPU; {told_losses(line)}", flush=True)
    print("All of it is measured: python benchmarks/generalization/summary.py")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = [cell.name for cell in (*CELLS, *SMOLLM2_CELLS)]
    parser.add_argument("--minutes", type=float, default=10, help="of the clock")
    parser.add_argument("--cell", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--seed", action="append", type=int, help="only this; repeatable")
    parser.add_argument("--arm", action="append", help="only this, or a named one; repeatable")
    parser.add_argument("--tiny", action="store_true", help="show that it runs; counts nothing")
    parser.add_argument("--keep", action="store_true", help="new lines beside the code, and end")
    add_folder(parser)
    options = parser.parse_args()
    try:
        options.arm = [check_arm(name) for name in options.arm or ()]
    except ValueError as error:
        parser.error(str(error))
    return options


def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", default=".cache/generalization", help="of the lines")


def place_of(options: argparse.Namespace) -> Place:
    work = Path(options.folder).resolve()
    work = work / "tiny" if options.tiny else work
    work.mkdir(parents=True, exist_ok=True)
    return Place(work, options.tiny)


def cells_of(names: list[str] | None, tiny: bool) -> list[Cell]:
    if not names:
        return list(CELLS[:1] if tiny else CELLS)
    return [cell for cell in (*CELLS, *SMOLLM2_CELLS) if cell.name in names]


def not_done(place: Place, items: list[Item], lines: list[dict[str, Any]]) -> list[Item]:
    """Each training once, though several arms may have its settings."""
    done = {line["key"] for line in lines}
    found: dict[str, Item] = {}
    for item in items:
        key = place.key(item)
        if key not in done:
            found.setdefault(key, item)
    return list(found.values())


def expected_seconds(item: Item, lines: list[dict[str, Any]]) -> float:
    """Of the clock, by the lines of the same arm and size, else a guess."""
    seconds = [
        line["wall"] for line in lines if line["arm"] == item.arm and line["num"] == item.cell.num
    ]
    scale = MODEL_SCALE if item.cell in SMOLLM2_CELLS else 1.0
    return median(seconds) if seconds else scale * GUESSED_SECONDS[item.cell.num]


def measure(place: Place, item: Item, seconds_left: float) -> dict[str, Any] | None:
    """The line of a training; None where fit was stopped, as ``seconds_left`` were not enough."""
    key, begin, cpu = place.key(item), time.monotonic(), time.process_time()
    model, parts = item.cell.model, place.parts(item)
    folder = place.work / "runs" / key
    line = head_of(item, key)
    with quiet_libraries():
        found: dict[str, Any] | None
        if item.arm == BASE:
            found = test_documents(model, parts)
            found["seconds"] = time.process_time() - cpu
        elif item.settings is not None:
            found = trained(item.settings, model, parts, item.seed, folder)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            found = fitted(
                item.recipe,
                item.fit_settings,
                model,
                place.data(item.cell, item.seed),
                item.seed,
                folder,
                seconds_left,
            )
    if found is None:
        return None
    return {**line, "num": item.cell.num, "wall": time.monotonic() - begin, **found}


def told_losses(line: dict[str, Any]) -> str:
    """Mean nats of a test document by kept weights: a glance, no figure."""
    if "diverged" in line:
        return str(line["diverged"])
    return ", ".join(
        f"{name} {sum(kept['nll']) / len(kept['nll']):.2f} nats a document, "
        f"{kept['memorized']} memorized"
        for name, kept in line["kept"].items()
    )


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
