"""The log of a training that goes on, read again and again as it grows."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.results.diagnosis import Diagnosis
from heldout.jobs.diagnosing.find_log import find_log, written
from heldout.jobs.diagnosing.from_log import diagnosis_of_log
from heldout.jobs.diagnosing.trainer_logs import TrainerLog, read_logs

# A log that does not say when its training is over is over when nothing was written for so long.
QUIET_SECONDS = 3600.0


@dataclass(frozen=True)
class Watched:
    """What is told at one reading: a diagnosis, or why there is none yet.

    ``over`` is why this is the last one: the log says so, or nothing was written for long.
    """

    result: Diagnosis | None
    waiting: str = ""
    over: Literal["", "ended", "quiet"] = ""

    @property
    def step(self) -> int:
        """Of the last evaluation, or of the last training loss where there is none."""
        history = self.result.facts.history if self.result else ()
        return history[-1].step if history else 0


def watch(
    target: str | Path,
    *,
    evaluation: str = "",
    facts: Mapping[str, Any] | None = None,
    every: float = 30.0,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Watched]:
    """Yield when the verdict is another than before, once while there is none, and at the end.

    target: a log, a folder that holds one, or a run of heldout; it is looked for at each reading.
    ``pause`` waits ``every`` seconds between two readings. Raises UserError where there is nothing,
    or where a log cannot be read and does not grow either.
    """
    path = Path(target).expanduser()
    if not path.exists():
        raise UserError(f"--watch {target}: no file or folder lies there.")
    if not every > 0:
        raise UserError(f"--every must be more than 0 seconds, got {every:g}.")
    told: tuple[Any, ...] | None = None
    while True:
        file = _log_of(path)
        quiet = _is_quiet(file or path, max(QUIET_SECONDS, 10 * every))
        try:
            log = _read(file, path, evaluation, facts or {})
        except UserError as error:
            if quiet:
                raise
            seen = Watched(None, str(error))
            verdict: tuple[Any, ...] = ()
        else:
            known = replace(log.facts, **(facts or {}))
            result = diagnosis_of_log(str(target), log, known)
            over = "ended" if log.has_ended else "quiet" if quiet else ""
            seen = Watched(result, over=over)  # type: ignore[arg-type]
            verdict = _verdict(result, log)
        if verdict != told or seen.over:
            yield seen
            told = verdict
        if seen.over:
            return
        pause(every)


def _log_of(path: Path) -> Path | None:
    if (path / "status.json").is_file():
        history = path / "history.jsonl"
        return history if history.is_file() else None
    return find_log(path)


def _read(file: Path | None, path: Path, evaluation: str, facts: Mapping[str, Any]) -> TrainerLog:
    if file is None or (file.is_file() and not file.stat().st_size):
        raise UserError(f"{path} holds no log with losses yet.")
    return read_logs(file, evaluation, facts.get("total_epochs") or facts.get("epochs"))


def _verdict(result: Diagnosis, log: TrainerLog) -> tuple[Any, ...]:
    """What a change of is told: the light, the first cause, and what broke."""
    causes = [cause.name for cause in result.verdict.causes[:1]]
    return (result.verdict.verdicts["fit"].color, causes, len(log.course.faults), log.course.died)


def _is_quiet(path: Path, seconds: float) -> bool:
    return time.time() - written(path) > seconds
