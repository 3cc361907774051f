"""What is trained and searched, and where what is done lies."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from heldout.core.search_space import Point

VOCABULARY = 640
LENGTH = 128  # tokens of a window
BATCH = 8  # windows of a step
PASSAGES = 294  # of the training speeches, in U
TIMES = (1, 2, 4)
WIDTH = 128  # 475,000 parameters
FOLDER = Path(f".cache/data_efficiency/{PASSAGES}_passages")
WARMUP = 50  # steps
FALL = 0.25  # the share of a training over which its rate falls to 0
EMA = {"decay": 0.99}
RATES = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
EPOCHS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
WIDTHS = [64, 96, WIDTH]
BASELINE_GRIDS = {"epochs": EPOCHS, "rate": RATES, "width": WIDTHS}
BASELINE_START = {"rate": 2e-3, "width": WIDTH}
START_EPOCHS = {1: 6, 2: 8, 4: 8}
BASELINE_SEEDS = (0, 1, 2, 3)
GRIDS = {
    "decay": [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4],
    "rate": RATES,
    "epochs": [8, 16, 32],  # more take too long here, though 64 are better for one model
    "dropout": [0.0, 0.1, 0.2],
    "width": WIDTHS,
}
START = {"epochs": 32, "rate": 2e-3, "decay": 0.8, "dropout": 0.0, "width": WIDTH}
CHOSEN = START  # by the search of a single model
SEEDS = 3  # trainings of the chosen point
# Beside them the ensemble may use what the search has trained on the way: changes of that point.
TRIED: list[dict[str, float]] = [
    {"rate": 1e-3},
    {"rate": 4e-3},
    {"decay": 0.4},
    {"decay": 1.6},
    {"epochs": 16},
    {"width": 96},
    {"dropout": 0.1},
    {"dropout": 0.1, "decay": 0.4},
    {"dropout": 0.1, "epochs": 16},
    {"dropout": 0.1, "epochs": 64},
    {"dropout": 0.1, "epochs": 64, "seed": 1},
    {"decay": 0.4, "epochs": 16},
    {"decay": 0.4, "epochs": 16, "seed": 1},
]
MAX_TRIALS = 24


@dataclass(frozen=True)
class Setting:
    """One training, but for its epochs."""

    times: int = 1  # of U
    width: int = WIDTH
    rate: float = 4e-3
    decay: float = 0.0
    dropout: float = 0.0
    treated: bool = False  # averaged weights, and text cut anew for every epoch
    seed: int = 0

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def setting_at(base: Setting, point: Point) -> tuple[Setting, float]:
    values = {key: value for key, value in point.items() if key != "epochs"}
    return replace(base, **values), point["epochs"]


def treated_setting(changes: Mapping[str, float]) -> tuple[Setting, float]:
    """The chosen point with some of its values changed; ``seed`` may be one of them."""
    point = {**CHOSEN, **changes}
    seed = int(point.pop("seed", 0))
    return setting_at(Setting(treated=True, seed=seed), point)


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Seconds of processor time, appended to a file."""
    begin = time.process_time()
    yield
    entry = {"stage": stage, "seconds": time.process_time() - begin}
    with (FOLDER / "seconds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def lines_of(name: str) -> list[str]:
    path = FOLDER / f"{name}.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
