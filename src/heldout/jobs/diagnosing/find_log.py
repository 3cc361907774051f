"""Which file is a training log, and of what format: by its content, whatever its name."""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from heldout.core.discovery import packages_of
from heldout.core.errors import UserError
from heldout.jobs.diagnosing.raw_log import HEAD_BYTES, RawLog

_MODELS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
STATE = "trainer_state.json"
_TRAINER = "heldout.jobs.diagnosing.log_formats.trainer_state"
MOST_FILES = 40  # of a folder that are looked into


@dataclass(frozen=True)
class LogFormat:
    """One file of ``log_formats``; others announce theirs by an entry point ``log_formats``."""

    reads: str
    places: tuple[str, ...]
    read: Callable[[Path, bytes], RawLog | None]


def log_formats() -> Iterator[LogFormat]:
    """All that there are, that of a Trainer first; where it reads, no other is imported."""
    yield _format_of(_TRAINER)
    yield from _others()


@cache
def _others() -> tuple[LogFormat, ...]:
    found = packages_of("jobs.diagnosing.log_formats")
    names = [f"{name}.{file.stem}" for name, at in found for file in sorted(at.glob("[!_]*.py"))]
    return tuple(_format_of(name) for name in names if name != _TRAINER)


def _format_of(name: str) -> LogFormat:
    module = importlib.import_module(name)
    return LogFormat(module.READS, module.PLACES, module.read)


def read_raw(path: Path) -> RawLog | None:
    """What a file, or a store of metrics, holds; None for what is no log that is known."""
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    for known in log_formats():
        log = known.read(path, head)
        if log is not None:
            return log
    return None


def unknown_log(path: str | Path) -> UserError:
    """What is said of a file that no format reads."""
    known = "; ".join(known.reads for known in log_formats())
    return UserError(f"{path} is no training log with losses that is read. Read are: {known}.")


def find_log(path: Path) -> Path | None:
    """The log that ``path`` is or holds: the newest of a Trainer, else the newest there is.

    Of checkpoints that of most steps is taken, as it holds all that came before; a log with an
    evaluation goes before one without.
    """
    if path.is_file():
        return path if path.suffix not in _MODELS else None
    if not path.is_dir():
        return None
    if path.name == "metrics" and any(path.iterdir()):
        return path
    if (state := find_state(path)) is not None:
        return state
    without = None
    for file in _newest(path):
        log = read_raw(file)
        if log is None:
            continue
        if any(key.startswith("eval") for entry in log.entries for key in entry):
            return file
        without = without or file
    return without


def find_state(path: Path) -> Path | None:
    """The newest ``trainer_state.json`` of a checkpoint or a Trainer's output folder."""
    found = [*path.glob(STATE), *path.glob(f"checkpoint-*/{STATE}")]
    return max(found, key=_steps_of, default=None)


def has_weights(folder: Path) -> bool:
    """Whether a model, an adapter or a checkpoint lies there, which is judged by itself."""
    patterns = ("*.safetensors", "checkpoint-*/*.safetensors", "*.bin", "*.gguf")
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _newest(folder: Path) -> Iterator[Path]:
    """What may be a log by its place, the latest written first."""
    found = {
        file
        for known in log_formats()
        for place in known.places
        for file in folder.glob(place)
        if file.suffix not in _MODELS
    }
    dated = sorted(found, key=lambda file: (-written(file), str(file)))
    return iter(dated[:MOST_FILES])


def written(file: Path) -> float:
    """When a file, or one in a folder, was last written, in seconds since 1970."""
    inner = [one.stat().st_mtime for one in file.rglob("*")] if file.is_dir() else []
    return max([file.stat().st_mtime, *inner])


def _steps_of(file: Path) -> int:
    try:
        return int(json.loads(file.read_text(encoding="utf-8")).get("global_step", 0))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return -1
