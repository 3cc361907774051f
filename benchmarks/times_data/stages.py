"""The stages that train and choose on validation: searches, seeds, the ensemble."""

import json
import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from times_data.held import Held
from times_data.settings import (
    BASELINE_GRIDS,
    BASELINE_SEEDS,
    BASELINE_START,
    FOLDER,
    GRIDS,
    MAX_TRIALS,
    SEEDS,
    START,
    START_EPOCHS,
    TRIED,
    WIDTH,
    Setting,
    lines_of,
    setting_at,
    timed,
    treated_setting,
)
from times_data.speeches import Data
from times_data.trainings import train, weights_path

from heldout.core.losses import DocumentLosses
from heldout.core.search_space import Point
from heldout.search.coordinate import CoordinateSearch, search_coordinates
from heldout.search.tried import Tried

# G groups, N scored tokens, K members

SELECTED = FOLDER / "selected.json"
MEMBERS = 12  # of the ensemble of what was trained, at most


class Untrained(Exception):
    pass


def searched(
    name: str, base: Setting, grids, start: Point, data: Data, held: Held, *, trains: bool
) -> CoordinateSearch:
    """A coordinate search whose trials are appended to a file and never run again.

    If it may not train, it goes as far as there are trained models.
    """
    known = [Tried.from_json(json.loads(line)) for line in lines_of(f"search_{name}")]

    def evaluate(point: Point) -> DocumentLosses | None:
        setting, epochs = setting_at(base, point)
        if not trains and not weights_path(setting, epochs).exists():
            raise Untrained
        with timed(name):
            try:
                losses = held.losses(held.nats(train(setting, epochs, data)))
            except FloatingPointError:
                losses = None
        loss = losses.nats_per_token if losses else math.nan
        print(f"{time.strftime('%H:%M:%S')} {name} {point} {loss:.4f}", flush=True)
        return losses

    def keep(tried: Tried) -> None:
        known.append(tried)
        with (FOLDER / f"search_{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(tried.to_json()) + "\n")

    for max_trials in range(MAX_TRIALS, 0, -1):
        with suppress(Untrained):
            return search_coordinates(
                evaluate,
                grids,
                start=start,
                max_trials=max_trials,
                cost=lambda point: point["epochs"] * point.get("width", WIDTH) ** 2,
                known=known,
                keep=keep,
            )
    raise FileNotFoundError(f"{name}: not even the start is trained")


def baseline(times: int, data: Data, held: Held, *, trains: bool) -> CoordinateSearch:
    base = Setting(times=times)
    start = {"epochs": START_EPOCHS[times], **BASELINE_START}
    return searched(f"baseline_{times}", base, BASELINE_GRIDS, start, data, held, trains=trains)


def baseline_seeds(times: int, data: Data, held: Held) -> None:
    """Trainings at the chosen point that differ in their seed alone."""
    chosen = baseline(times, data, held, trains=False).chosen
    assert chosen is not None
    setting, epochs = setting_at(Setting(times=times), chosen.point)
    for seed in BASELINE_SEEDS[1:]:
        with timed(f"baseline {times} seed {seed}"):
            train(replace(setting, seed=seed), epochs, data)


def kept_seeds(setting: Setting, epochs: float) -> list[Path]:
    paths = [weights_path(replace(setting, seed=seed), epochs) for seed in BASELINE_SEEDS]
    return [path for path in paths if path.exists()]


def regularized(data: Data, held: Held, *, trains: bool) -> CoordinateSearch:
    base = Setting(treated=True)
    return searched("regularized", base, GRIDS, START, data, held, trains=trains)


def train_seeds(seeds: list[int], data: Data) -> None:
    """Trainings that differ in their seed alone."""
    for seed in seeds:
        with timed(f"seed {seed}"):
            train(*treated_setting({"seed": seed}), data)


def train_tried(data: Data) -> None:
    """Points of the search, and those that were tried before it."""
    for changes in TRIED:
        with timed(f"tried {changes}"):
            train(*treated_setting(changes), data)


def seed_paths() -> list[Path]:
    return [weights_path(*treated_setting({"seed": seed})) for seed in range(SEEDS)]


def trained_pool() -> list[dict[str, float]]:
    """What the ensemble may choose from."""
    pool = [{"seed": seed} for seed in range(SEEDS)] + TRIED
    return [changes for changes in pool if weights_path(*treated_setting(changes)).exists()]


def select(held: Held) -> None:
    """Of all that was trained on U, add the model that lowers the validation loss most, and again.

    Ensemble selection (Caruana et al. 2004) without replacement, until none lowers it: trainings
    that were paid for anyway. The list is written once, as the student is taught by it.
    """
    if SELECTED.exists():
        return
    pool = trained_pool()
    logs = [
        -held.nats(torch.load(weights_path(*treated_setting(changes)), weights_only=True))
        for changes in pool
    ]
    chosen: list[int] = []
    total_N = np.full(len(logs[0]), -np.inf)
    steps = []
    while len(chosen) < min(MEMBERS, len(pool)):
        losses = {
            place: math.log(len(chosen) + 1) - float(np.logaddexp(total_N, log_N).mean())
            for place, log_N in enumerate(logs)
            if place not in chosen
        }
        best = min(losses, key=losses.__getitem__)
        if steps and losses[best] >= steps[-1]["validation_nats_per_token"]:
            break
        chosen.append(best)
        total_N = np.logaddexp(total_N, logs[best])
        steps.append({"model": pool[best], "validation_nats_per_token": losses[best]})
        print(steps[-1], flush=True)
    SELECTED.write_text(json.dumps({"pool": len(pool), "steps": steps}, indent=1))


def selected_paths() -> list[Path]:
    steps = json.loads(SELECTED.read_text())["steps"]
    return [weights_path(*treated_setting(step["model"])) for step in steps]
