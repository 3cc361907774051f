"""The trackers of a run: transformers tells them each evaluation, we what was found at the end.

One run of a tracker belongs to one run folder, also when training is resumed by another process:
its name and ids are kept in ``trackers.json``.
"""

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers.integrations import get_available_reporting_integrations

from heldout.core.errors import UserError
from heldout.core.files import write_text

FILE = "trackers.json"
PROJECT = "heldout"
PACKAGES = {name: name for name in ("tensorboard", "trackio", "wandb", "mlflow")}
_EVENTS = "TENSORBOARD_LOGGING_DIR"


@dataclass(frozen=True)
class TrackerRun:
    """What the run is called; the id that MLflow gave it; whether its end has been told."""

    name: str
    mlflow_id: str = ""
    is_told: bool = False

    @classmethod
    def of(cls, folder: Path) -> "TrackerRun":
        """Of a run folder; a new name where no tracker has heard of it."""
        path = folder / FILE
        if path.exists():
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        made = cls(f"{folder.resolve().name}-{secrets.token_hex(3)}")
        made.save(folder)
        return made

    def save(self, folder: Path) -> None:
        """Into the run folder."""
        write_text(folder / FILE, json.dumps(asdict(self), indent=2) + "\n")


def check_trackers(names: Sequence[str]) -> None:
    """UserError, before the first step, for trackers that are unknown or not installed."""
    available = get_available_reporting_integrations()
    for name in names:
        if name in available:
            continue
        if name in PACKAGES:
            raise UserError(
                f"train.report_to={name} needs a package that is not installed: run "
                f"`pip install {PACKAGES[name]}`."
            )
        raise UserError(
            f"train.report_to: {name!r} is no tracker that is known here: use "
            f"{', '.join(PACKAGES)}, or another that transformers knows and that is installed."
        )


@contextmanager
def open_trackers(names: Sequence[str], folder: Path) -> Iterator[TrackerRun | None]:
    """The run of each tracker, open for a Trainer's callbacks; None without any.

    folder: the run's own. Raises UserError for a tracker that cannot be opened.
    """
    if not names:
        yield None
        return
    run = TrackerRun.of(folder)
    # What they print of themselves is no result.
    with _events_beside(folder), redirect_stdout(sys.stderr):
        closers = []
        try:
            for name in names:
                if name in _OPENERS:
                    run, close = _opened(name, run)
                    closers.append(close)
            run.save(folder)
            yield run
        finally:
            for close in closers:
                close()


def tell_end(
    names: Sequence[str],
    folder: Path,
    *,
    step: int,
    figures: Mapping[str, float],
    sentences: Mapping[str, str],
) -> None:
    """Give each tracker the figures and sentences that a run ended with, once.

    Raises UserError for a tracker that cannot be opened.
    """
    if not names or TrackerRun.of(folder).is_told:
        return
    with open_trackers(names, folder) as run:
        assert run is not None
        for name in names:
            if name in _TELLERS:
                _TELLERS[name](run, folder, step, dict(figures), dict(sentences))
        replace(run, is_told=True).save(folder)


@contextmanager
def _events_beside(folder: Path) -> Iterator[None]:
    """Event files outlive the checkpoints, unless the user has named a place for them."""
    if _EVENTS in os.environ:
        yield
        return
    os.environ[_EVENTS] = str(folder / "tensorboard")
    try:
        yield
    finally:
        del os.environ[_EVENTS]


def _opened(name: str, run: TrackerRun) -> tuple[TrackerRun, Callable[[], Any]]:
    try:
        return _OPENERS[name](run)
    except Exception as error:  # each has errors of its own for a login or a server that fails
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"train.report_to={name}: it cannot be opened ({said}): log in, or leave it out."
        ) from error


def _open_wandb(run: TrackerRun) -> tuple[TrackerRun, Callable[[], Any]]:
    import wandb

    if wandb.run is not None:  # the caller's own
        return run, lambda: None
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), id=run.name, name=run.name, resume="allow"
    )
    return run, opened.finish


def _open_mlflow(run: TrackerRun) -> tuple[TrackerRun, Callable[[], Any]]:
    import mlflow

    if mlflow.active_run() is not None:
        return run, lambda: None
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        mlflow.set_experiment(name)
    known: dict[str, Any] = {"run_id": run.mlflow_id} if run.mlflow_id else {"run_name": run.name}
    opened = mlflow.start_run(**known)
    return replace(run, mlflow_id=opened.info.run_id), mlflow.end_run


# The callbacks of the other trackers open them by the name of the run.
_OPENERS = {"wandb": _open_wandb, "mlflow": _open_mlflow}


def _tell_tensorboard(
    run: TrackerRun, folder: Path, step: int, figures: dict[str, float], sentences: dict[str, str]
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(os.environ[_EVENTS]) as writer:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        for name, sentence in sentences.items():
            writer.add_text(name, sentence, step)


def _tell_trackio(
    run: TrackerRun, folder: Path, step: int, figures: dict[str, float], sentences: dict[str, str]
) -> None:
    import trackio

    trackio.init(project=PROJECT, name=run.name, resume="allow")
    trackio.log({**figures, **sentences, "train/global_step": step})
    trackio.finish()


def _tell_wandb(
    run: TrackerRun, folder: Path, step: int, figures: dict[str, float], sentences: dict[str, str]
) -> None:
    import wandb

    wandb.run.summary.update({**figures, **sentences})


def _tell_mlflow(
    run: TrackerRun, folder: Path, step: int, figures: dict[str, float], sentences: dict[str, str]
) -> None:
    import mlflow

    mlflow.log_metrics(figures, step=step)
    mlflow.set_tags(sentences)


_TELLERS = {
    "tensorboard": _tell_tensorboard,
    "trackio": _tell_trackio,
    "wandb": _tell_wandb,
    "mlflow": _tell_mlflow,
}
