"""Whether two folders of a job hold the same: figures, weights and rows, whatever they took."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# Of a session, not of its figures.
_TIMES = re.compile(
    r"seconds.*|.*_seconds|time|started|updated|peak_gb|side_by_side|message|cost|facts"
)
_OTHER = {
    "checks.json",
    "status.json",
    "environment.json",
    "hashes.json",
    "places.json",
    "made_with.json",
}
_NEVER = ("logs", "checkpoints", "tensorboard")


def different(one: Path, other: Path, *, stopped: bool = False) -> list[str]:
    """Names of the files that are not the same, or are in one of the folders alone.

    stopped: an interval was interrupted by a signal that is obeyed, so that the training loss that
    is averaged over it is another.
    """
    left, right = (_held(folder, stopped) for folder in (one, other))
    return sorted(name for name in left | right if left.get(name) != right.get(name))


def _held(folder: Path, stopped: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.name in _OTHER or name.split("/")[0] in _NEVER:
            continue
        if path.suffix in (".json", ".jsonl"):
            text = path.read_text(encoding="utf-8").replace(str(folder), "FOLDER")
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            found[name] = [_without_times(json.loads(line), stopped) for line in lines]
        elif path.suffix == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in sorted(arrays)}
        elif path.suffix == ".safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _without_times(value: Any, stopped: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_times(each, stopped)
            for key, each in value.items()
            if not (_TIMES.fullmatch(key) or (stopped and key == "training_loss"))
        }
    return [_without_times(each, stopped) for each in value] if isinstance(value, list) else value


def doubled(folder: Path) -> list[str]:
    """Histories with a step twice, and openings of the seal for one purpose twice."""
    found = []
    for path in folder.rglob("*history.jsonl"):
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        if len(steps) != len(set(steps)):
            found.append(path.relative_to(folder).as_posix())
    for path in folder.rglob("test_openings.jsonl"):
        purposes = [json.loads(line)["purpose"] for line in path.read_text().splitlines()]
        if len(purposes) != len(set(purposes)):
            found.append(path.relative_to(folder).as_posix())
    return found


def half_written(folder: Path) -> list[str]:
    """What a writer has left that did not come to its end."""
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if ".partial" in p.name]
