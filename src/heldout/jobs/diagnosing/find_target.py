"""Where the model that is to be diagnosed lies, with what its folder says of its training."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.probe import MODELS
from heldout.core.run import Run
from heldout.jobs.diagnosing.trainer_logs import find_state, read_logs
from heldout.jobs.evidence.judge import facts_of_run
from heldout.lm.source import adapter_base, find_source

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class DiagnosedTarget:
    """A model to load with its base, or, where ``model`` is empty, only what a log says."""

    model: str
    base: str | None
    facts: Facts
    run: Run | None = None
    checkpoints: list[Path] = field(default_factory=list)  # in the order of their steps


def find_target(target: str, base: str, logs: str | Path) -> DiagnosedTarget:
    """A run, a model inside of one, a model or adapter, a Trainer's output, or a log.

    ``base`` goes before the base that an adapter or a run names, ``logs`` before a log that lies
    with the model. Raises UserError for what is none of these.
    """
    path = Path(target).expanduser()
    if path.is_dir() and (path / "status.json").is_file():
        return _of_run(Run.open(path), base, "best")
    if path.is_dir() and path.name in MODELS and (path.parent / "status.json").is_file():
        return _of_run(Run.open(path.parent), base, path.name)
    if path.is_file() and path.suffix == ".json":
        return DiagnosedTarget("", None, read_logs(path))
    state = Path(logs) if logs else (find_state(path) if path.is_dir() else None)
    facts = read_logs(state) if state is not None else Facts()
    if path.is_dir() and state is not None and not _holds_weights(path):
        return DiagnosedTarget("", None, facts)
    source = find_source(target)
    if source.is_adapter:
        base = base or adapter_base(source)
        facts = replace(facts, method="lora")
    checkpoints = sorted(
        (folder for folder in path.glob("checkpoint-*") if _CHECKPOINT.fullmatch(folder.name)),
        key=step_of,
    )
    return DiagnosedTarget(target, base or None, facts, checkpoints=checkpoints)


def step_of(checkpoint: Path) -> int:
    """The number in the name of a checkpoint's folder."""
    return int(checkpoint.name.split("-")[1])


def _of_run(run: Run, base: str, name: str) -> DiagnosedTarget:
    if not run.path(name).is_dir():
        raise UserError(f"{run.folder} holds no {name}/ model: its training did not get that far.")
    environment = run.read_json("environment.json")
    from_scratch = bool(environment.get("from_scratch"))
    return DiagnosedTarget(
        str(run.path(name)),
        base or ("" if from_scratch else environment["model"]) or None,
        facts_of_run(run, run.recipe, name),
        run,
    )


def _holds_weights(path: Path) -> bool:
    patterns = ("*.safetensors", "checkpoint-*/*.safetensors", "*.bin", "*.gguf")
    return any(next(path.glob(pattern), None) is not None for pattern in patterns)
