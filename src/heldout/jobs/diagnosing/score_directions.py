"""Which way a Trainer's own metric is better: by its arguments, else by what it kept.

``training_args.bin`` is a pickle, which can run code when it is loaded: its words are read one by
one, and nothing of it is built.
"""

import math
import pickletools
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heldout.core.finite import finite

ARGUMENTS = "training_args.bin"
_METRIC, _DIRECTION = "metric_for_best_model", "greater_is_better"
_MOST_BYTES = 2**20  # of the arguments; a few kilobytes are usual
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}


def score_directions(folder: Path, state: Mapping[str, Any]) -> dict[str, bool]:
    """Name of the metric that chose the best checkpoint -> whether greater is better.

    Empty where it is a loss, or where neither the arguments beside the log nor the log tell.
    """
    said = _arguments(folder / ARGUMENTS)
    metric, greater = said.get(_METRIC), said.get(_DIRECTION)
    if isinstance(metric, str) and isinstance(greater, bool):
        return {} if metric.endswith("loss") else {score_name(metric): greater}
    return _by_what_was_kept(state)


def score_name(key: str) -> str:
    """The name of a score without what a Trainer and TRL put before it."""
    return key.removeprefix("eval_").removeprefix("mean_token_")


def _arguments(file: Path) -> dict[str, Any]:
    """The two settings, as far as they are found; torch writes a zip with a pickle in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            inner = next(each for each in archive.infolist() if each.filename.endswith("data.pkl"))
            return _settings(archive.read(inner)) if inner.file_size <= _MOST_BYTES else {}
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile, zlib.error, RuntimeError):
        return {}  # none there, or what some other tool calls so


def _settings(pickled: bytes) -> dict[str, Any]:
    """What follows the two names in the words of a pickle."""
    found: dict[str, Any] = {}
    memo: dict[Any, Any] = {}
    value: Any = None
    for word, argument, _ in pickletools.genops(pickled):
        if word.name == "MEMOIZE":
            memo[len(memo)] = value
            continue
        if "PUT" in word.name:
            memo[argument] = value
            continue
        key = value
        known = memo.get(argument) if "GET" in word.name else argument
        value = _CONSTANTS.get(word.name, known)
        if key in (_METRIC, _DIRECTION):
            found.setdefault(str(key), value)
    return found


def _by_what_was_kept(state: Mapping[str, Any]) -> dict[str, bool]:
    """The one metric that had its best value where the Trainer says, at its lowest or highest."""
    best, step = finite(state.get("best_metric")), state.get("best_global_step")
    if best is None or step is None:
        return {}
    values: dict[str, list[float]] = {}
    matching = set()
    for entry in state.get("log_history", ()):
        for key, logged in entry.items() if isinstance(entry, dict) else ():
            value = finite(logged)
            if key.startswith("eval_") and value is not None:
                values.setdefault(key, []).append(value)
                if entry.get("step") == step and math.isclose(value, best, rel_tol=1e-9):
                    matching.add(key)
    if len(matching) != 1:
        return {}
    (name,) = matching
    low, high = min(values[name]), max(values[name])
    if name.endswith("loss") or low == high or best not in (low, high):
        return {}
    return {score_name(name): best == high}
