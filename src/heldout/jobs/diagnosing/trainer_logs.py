"""What the logs of a training tell: ``trainer_state.json`` of any Hugging Face Trainer.

A log holds no documents, so nothing in it has an interval over them, and its training loss was
measured with dropout and penalties, on batches that the model had not yet been updated on.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.finite import finite
from heldout.jobs.diagnosing.log_course import Course, course_of

STATE = "trainer_state.json"


@dataclass(frozen=True)
class TrainerLog:
    """What a log says of a training: settings and history as facts, and how it was read."""

    facts: Facts
    course: Course
    folder: Path
    best_step: int | None = None  # that a Trainer kept, by its own metric
    best_value: float | None = None


def read_logs(path: str | Path, evaluation: str = "") -> TrainerLog:
    """History and settings from ``trainer_state.json``, or a folder that holds one.

    Of several checkpoints the newest is read: it holds all that came before. ``evaluation`` is the
    NAME of ``eval_NAME_loss``, where there are several. Raises UserError where there is no log,
    where it holds no losses, and for a name that it does not have.
    """
    file = find_state(Path(path))
    if file is None:
        raise UserError(f"{path}: no {STATE} lies there: give the file, or a checkpoint folder.")
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        entries = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not the log of a Trainer ({error}).") from None
    course = course_of(entries, state, evaluation)
    if evaluation and evaluation not in course.names:
        known = ", ".join(name for name in course.names if name) or "none with a name"
        raise UserError(
            f"--evaluation {evaluation}: {file} holds no eval_{evaluation}_loss; there are {known}."
        )
    if not course.history and not course.faults:
        raise UserError(f"{file} holds no losses: set logging_steps and eval_strategy.")
    rates = [rate for entry in entries if (rate := finite(entry.get("learning_rate")))]
    epochs = max((point.epoch for point in course.history), default=0.0)
    facts = Facts(
        epochs=epochs,
        total_epochs=finite(state.get("num_train_epochs")) or epochs,
        learning_rate=max(rates, default=None),
        batch_size=_whole(state.get("train_batch_size")),
        history=course.history,
    )
    return TrainerLog(
        facts,
        course,
        file.parent,
        _whole(state.get("best_global_step")),
        finite(state.get("best_metric")),
    )


def find_state(path: Path) -> Path | None:
    """The newest ``trainer_state.json`` of a file, a checkpoint or a Trainer's output folder."""
    if path.is_file():
        return path if path.suffix == ".json" else None
    found = [*path.glob(STATE), *path.glob(f"checkpoint-*/{STATE}")]
    return max(found, key=_steps_of, default=None)


def log_alone(target: Path) -> Path | None:
    """The log where there is nothing else to judge: a .json file, or a folder without weights."""
    if target.is_file() and target.suffix == ".json":
        return target
    if not target.is_dir() or (target / "status.json").is_file():
        return None
    patterns = ("*.safetensors", "checkpoint-*/*.safetensors", "*.bin", "*.gguf")
    if any(next(target.glob(pattern), None) is not None for pattern in patterns):
        return None
    return find_state(target)


def _steps_of(file: Path) -> int:
    try:
        return int(json.loads(file.read_text(encoding="utf-8")).get("global_step", 0))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return -1


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
