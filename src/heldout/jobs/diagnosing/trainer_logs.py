"""What the logs of a training tell, whichever tool wrote them.

A log holds no documents, so nothing in it has an interval over them, and its training loss was
measured with dropout and penalties, on batches that the model had not yet been updated on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.finite import finite
from heldout.jobs.diagnosing.find_log import STATE, find_log, has_weights, read_raw, unknown_log
from heldout.jobs.diagnosing.log_course import Course, course_of
from heldout.jobs.diagnosing.score_directions import score_directions


@dataclass(frozen=True)
class TrainerLog:
    """What a log says of a training: settings and history as facts, and how it was read."""

    facts: Facts
    course: Course
    folder: Path
    best_step: int | None = None  # that a Trainer kept, by its own metric
    best_value: float | None = None
    has_ended: bool | None = None  # None where the log does not say


def read_logs(
    path: str | Path, evaluation: str = "", num_epochs: float | None = None
) -> TrainerLog:
    """History and settings from the log that ``path`` is, or that a folder holds.

    Of several checkpoints of a Trainer the newest is read: it holds all that came before.
    ``evaluation`` is the NAME of ``eval_NAME_loss``, where there are several; ``num_epochs`` how
    many there were by the last step, where the log counts none. Raises UserError where there is no
    log, where it holds no losses, and for a name that it does not have.
    """
    file = find_log(Path(path))
    if file is None:
        raise UserError(f"{path}: no {STATE} or other log lies there: give the file.")
    log = read_raw(file)
    if log is None:
        raise unknown_log(file)
    entries, state = log.entries, dict(log.state)
    counted = any(finite(entry.get("epoch")) for entry in entries)
    if num_epochs and not counted:
        last = max((finite(entry.get("step")) or 0.0 for entry in entries), default=0.0)
        state |= {"max_steps": last, "num_train_epochs": num_epochs}
    directions = score_directions(file.parent, state)
    course = course_of(entries, state, evaluation, directions)
    course = replace(course, notes=(*log.notes, *course.notes))
    if evaluation and evaluation not in course.names:
        known = ", ".join(name for name in course.names if name) or "none with a name"
        raise UserError(
            f"--evaluation {evaluation}: {file} holds no eval_{evaluation}_loss; there are {known}."
        )
    if not course.history and not course.faults:
        raise UserError(f"{file} holds no losses: set logging_steps and eval_strategy.")
    rates = [rate for entry in entries if (rate := finite(entry.get("learning_rate")))]
    epochs = max((point.epoch for point in course.history), default=0.0) or None
    facts = Facts(
        epochs=epochs,
        total_epochs=finite(state.get("num_train_epochs")) or epochs,
        learning_rate=max(rates, default=None),
        batch_size=_whole(state.get("train_batch_size")),
        history=course.history,
        greater_is_better=directions,
    )
    return TrainerLog(
        facts,
        course,
        file.parent,
        _whole(state.get("best_global_step")),
        finite(state.get("best_metric")),
        log.has_ended,
    )


def log_alone(target: Path) -> Path | None:
    """The log where there is nothing else to judge: a file, or a folder without weights."""
    if target.is_dir() and ((target / "status.json").is_file() or has_weights(target)):
        return None
    return find_log(target)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
