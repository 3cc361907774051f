"""What the logs of a training tell: ``trainer_state.json`` of any Hugging Face Trainer.

A log holds no documents, so nothing in it has an interval, and its training loss was measured with
dropout and penalties, on batches that the model had not yet been updated on.
"""

import json
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.facts import Facts, HistoryPoint
from heldout.core.finite import finite

STATE = "trainer_state.json"


def read_logs(path: str | Path) -> Facts:
    """History and settings from ``trainer_state.json``, or a folder that holds one.

    Of several checkpoints the newest is read: it holds all that came before. Raises UserError
    where there is none, or where it holds no losses.
    """
    file = find_state(Path(path))
    if file is None:
        raise UserError(f"{path}: no {STATE} lies there: give the file, or a checkpoint folder.")
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        entries = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not the log of a Trainer ({error}).") from None
    history = _history(entries)
    if not history:
        raise UserError(f"{file} holds no losses: set logging_steps and eval_strategy.")
    rates = [rate for entry in entries if (rate := finite(entry.get("learning_rate")))]
    epochs = max((point.epoch for point in history), default=0.0)
    return Facts(
        epochs=epochs,
        total_epochs=finite(state.get("num_train_epochs")) or epochs,
        learning_rate=max(rates, default=None),
        batch_size=_whole(state.get("train_batch_size")),
        history=tuple(history),
    )


def find_state(path: Path) -> Path | None:
    """The newest ``trainer_state.json`` of a file, a checkpoint or a Trainer's output folder."""
    if path.is_file():
        return path if path.suffix == ".json" else None
    found = [*path.glob(STATE), *path.glob(f"checkpoint-*/{STATE}")]
    return max(found, key=_steps_of, default=None)


def _steps_of(file: Path) -> int:
    try:
        return int(json.loads(file.read_text(encoding="utf-8")).get("global_step", 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return -1


def _history(entries: list[dict[str, Any]]) -> list[HistoryPoint]:
    """One point per evaluation, with the mean training loss since the one before."""
    evaluated = [entry for entry in entries if finite(entry.get("eval_loss")) is not None]
    logged = [entry for entry in entries if finite(entry.get("loss")) is not None]
    if not evaluated:
        return [_point(entry, finite(entry["loss"]), None) for entry in logged]
    points, since = [], -1
    for entry in evaluated:
        step = int(entry.get("step", 0))
        between = [float(one["loss"]) for one in logged if since < int(one.get("step", 0)) <= step]
        mean = sum(between) / len(between) if between else None
        points.append(_point(entry, mean, float(entry["eval_loss"])))
        since = step
    return points


def _point(entry: dict[str, Any], train: float | None, validation: float | None) -> HistoryPoint:
    extra = {
        name.removeprefix("eval_"): value
        for name in ("eval_accuracy", "eval_mean_token_accuracy", "grad_norm")
        if (value := finite(entry.get(name))) is not None
    }
    return HistoryPoint(
        int(entry.get("step", 0)),
        float(entry.get("epoch", 0.0)),
        train,
        validation,
        finite(entry.get("learning_rate")),
        extra=extra,
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
