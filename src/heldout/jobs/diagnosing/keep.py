"""Which checkpoint to keep: by the loss, by a score, and where it lies."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.facts import HistoryPoint
from heldout.diagnosis.scores import disagreement
from heldout.jobs.diagnosing.trainer_logs import TrainerLog


def checkpoints_to_keep(
    history: Sequence[HistoryPoint], folder: Path, log: TrainerLog | None, *, has_risen: bool
) -> list[str]:
    """Sentences; none where the held-out loss has not surely risen since its lowest.

    ``folder`` is that of the log or of the checkpoints.
    """
    points = [point for point in history if point.validation_nll is not None]
    if not has_risen or len(points) < 2:
        return []
    lowest = min(points, key=lambda point: point.validation_nll or 0.0)
    if lowest.step == 0:
        return ["No checkpoint reads the held-out text better than the base model does."]
    told = []
    if found := disagreement(history, log.facts.greater_is_better if log else {}):
        name, best = found.name, found.by_score
        told += [
            f"Loss and {name} disagree: the loss was lowest at step {lowest.step}, where "
            f"{name} was {lowest.extra[name]:.3g}, and {name} was best at step {best.step}, "
            f"with {best.extra[name]:.3g}. Judge by the one that the model is for.",
            _to_keep(lowest.step, folder, "loss"),
            _to_keep(best.step, folder, name),
        ]
    else:
        told.append(_to_keep(lowest.step, folder))
    return [*told, *_kept_by_trainer(log, points, lowest, folder)]


def _to_keep(step: int, folder: Path, by: str = "") -> str:
    where = _checkpoint(folder, step)
    if by and where is None:
        return f"By {by} the checkpoint to keep is that of step {step}, which does not lie here."
    if by:
        return f"By {by} the checkpoint to keep is that of step {step}: {where}."
    if where is None:
        return f"The checkpoint to keep is that of step {step}; it does not lie beside the log."
    return f"The checkpoint to keep is that of step {step}: {where}."


def _kept_by_trainer(
    log: TrainerLog | None, points: Sequence[HistoryPoint], lowest: HistoryPoint, folder: Path
) -> list[str]:
    """The best by the trainer's own metric, where that is another than by the loss."""
    if log is None or log.best_step is None or log.best_value is None:
        return []
    if log.best_step == lowest.step or log.best_step not in {point.step for point in points}:
        return []
    return [
        f"By a metric of its own, {log.best_value:.4g}, the Trainer chose step {log.best_step}: "
        f"{_checkpoint(folder, log.best_step) or '-'}."
    ]


def _checkpoint(folder: Path, step: int) -> Path | None:
    """Of a Trainer, Lightning or MLX-LM, in the log's folder or the one above."""
    names = (
        f"checkpoint-{step}",
        f"checkpoints/*step={step}.ckpt",
        f"{step:07}_adapters.safetensors",
    )
    places = (
        place for where in (folder, folder.parent) for name in names for place in where.glob(name)
    )
    return next(places, None)
