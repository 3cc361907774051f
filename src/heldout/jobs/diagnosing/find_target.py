"""Where the model that is to be diagnosed lies, with what its folder says of its training."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from heldout.core.damage import refuse_damaged
from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.probe import MODELS
from heldout.core.run import Run
from heldout.jobs.diagnosing.find_log import find_state
from heldout.jobs.diagnosing.trainer_logs import TrainerLog, read_logs
from heldout.jobs.evidence.judge import facts_of_run
from heldout.lm.source import adapter_base, find_source

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class DiagnosedTarget:
    """A model to load with its base, and what is known of its training."""

    model: str
    base: str | None
    facts: Facts
    run: Run | None = None
    checkpoints: list[Path] = field(default_factory=list)  # in the order of their steps
    log: TrainerLog | None = None


def find_target(target: str, base: str, logs: str | Path, evaluation: str = "") -> DiagnosedTarget:
    """A run, a model inside of one, a model or adapter, or a Trainer's output.

    ``base`` goes before the base that an adapter or a run names, ``logs`` before a log that lies
    with the model. Raises UserError for what is none of these.
    """
    path = Path(target).expanduser()
    if path.is_dir() and (path / "status.json").is_file():
        return _of_run(Run.open(path), base, "best")
    if path.is_dir() and path.name in MODELS and (path.parent / "status.json").is_file():
        return _of_run(Run.open(path.parent), base, path.name)
    state = Path(logs) if logs else (find_state(path) if path.is_dir() else None)
    log = read_logs(state, evaluation) if state is not None else None
    if log is None and evaluation:
        raise UserError(f"--evaluation {evaluation}: goes with a log, and {target} holds none.")
    facts = log.facts if log is not None else Facts()
    source = find_source(target)
    if source.is_adapter:
        base = base or adapter_base(source)
        facts = replace(facts, method="lora")
    checkpoints = sorted(
        (folder for folder in path.glob("checkpoint-*") if _CHECKPOINT.fullmatch(folder.name)),
        key=step_of,
    )
    if log is not None and (saved := saved_step(path, checkpoints)) is not None:
        epochs = [point.epoch for point in facts.history if point.step == saved]
        facts = replace(facts, epochs=epochs[0]) if epochs else facts
    return DiagnosedTarget(target, base or None, facts, checkpoints=checkpoints, log=log)


def saved_step(folder: Path, checkpoints: list[Path]) -> int | None:
    """The step of the checkpoint whose weights lie in ``folder`` too; None where there is none.

    ``load_best_model_at_end`` with ``save_model`` leaves those of the best, not of the last.
    """
    mine = _weight_files(folder)
    for checkpoint in checkpoints:
        theirs = _weight_files(checkpoint)
        alike = mine and mine.keys() == theirs.keys()
        if alike and all(_same(mine[name], theirs[name]) for name in mine):
            return step_of(checkpoint)
    return None


def _weight_files(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in folder.glob("*.safetensors")}


def _same(first: Path, second: Path) -> bool:
    """Of two files of weights: their sizes, and 64 spaced pieces of a mebibyte of each."""
    size = first.stat().st_size
    if size != second.stat().st_size:
        return False
    piece = 2**20
    with first.open("rb") as one, second.open("rb") as other:
        for start in range(0, size, max(piece, size // 64)):
            one.seek(start)
            other.seek(start)
            if one.read(piece) != other.read(piece):
                return False
    return True


def step_of(checkpoint: Path) -> int:
    """The number in the name of a checkpoint's folder."""
    return int(checkpoint.name.split("-")[1])


def _of_run(run: Run, base: str, name: str) -> DiagnosedTarget:
    if not run.path(name).is_dir():
        raise UserError(f"{run.folder} holds no {name}/ model: its training did not get that far.")
    refuse_damaged(run)
    environment = run.read_json("environment.json")
    from_scratch = bool(environment.get("from_scratch"))
    base = base or ("" if from_scratch else environment["model"])
    if base:
        find_source(base)  # refused before the sealed test is opened
    return DiagnosedTarget(
        str(run.path(name)),
        base or None,
        facts_of_run(run, run.recipe, name),
        run,
    )
