"""Real processes that are killed at random moments, or started twice, and then go on."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults_equal import different, doubled, half_written
from faults_materials import Materials
from faults_processes import Ended, Place, Running

_SETTLED = 120.0  # seconds: what is older in the temporary folder is nobody's


@dataclass(frozen=True)
class Job:
    """A command whose ``out`` is a folder that it goes on in."""

    name: str
    command: Callable[[Materials, str], list[str]]
    go_on: Callable[[str], list[str]] | None = None  # else by the same command
    begins_with: str = ""  # a finished run, copied to where the job writes
    writes: str = "out"  # within the case's folder


def _plan(what: str, *more: str) -> Callable[[Materials, str], list[str]]:
    return lambda m, out: [
        *("plan", what, *(x.replace("ROWS", str(m.rows)) for x in more)),
        *("--out", out),
    ]


_SHORT = (
    *("--recipe", "full", "--set", "data.max_length=64", "--set", "train.learning_rate=5e-3"),
    *("--set", "train.max_epochs=1", "--set", "eval.per_epoch=1"),
)


def jobs(m: Materials) -> dict[str, Job]:
    found = (
        Job("fit", lambda m, out: [*m.fit, "--out", out], lambda out: ["fit", "--resume", out]),
        Job(
            "hyperfit",
            lambda m, out: [*m.hyperfit, "--out", out],
            lambda out: ["hyperfit", "--resume", out],
        ),
        Job("ensemble", lambda m, out: [*m.ensemble, "--out", out]),
        Job("distill", lambda m, out: ["distill", out], None, "ensemble"),
        Job(
            "counterfactual",
            lambda m, out: ["counterfactual", out, "--num-models", "8", "--epochs", "1"],
            None,
            "fit",
        ),
        Job(
            "advise",
            lambda m, out: [
                *("plan", "advise", "--model", str(m.model), "--data", str(m.rows)),
                *("--measure", *_SHORT, "--out", out),
            ],
        ),
        Job(
            "capacity",
            lambda m, out: [
                *("plan", "capacity", "--config", str(m.config), "--steps", "30"),
                *("--load", "1", "--load", "3", "--out", out),
            ],
        ),
        Job(
            "compress",
            lambda m, out: [
                *("plan", "compress", str(m.rows), "--model", str(m.model)),
                *("--blocks", "3", *_SHORT, "--out", out),
            ],
        ),
        Job(
            "clean",
            lambda m, out: ["check", str(m.rows), "--write-clean", out, "--out", f"{out}-page"],
        ),
    )
    return {job.name: job for job in found}


@dataclass(frozen=True)
class Killed:
    """What came of a kill: each of these is a fault."""

    hung: bool = False
    traceback: bool = False
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    rubbish: tuple[str, ...] = ()
    unclear: str = ""
    was_in_time: bool = True
    words: str = ""


def reference(job: Job, m: Materials, folder: Path) -> tuple[Path, float]:
    """The folder of an uninterrupted run and its seconds of processor, made once."""
    place = Place(folder / job.name)
    out, cpu = place.at / "out", place.folder / "cpu"
    if not cpu.exists():
        shutil.rmtree(place.folder, ignore_errors=True)
        place.make()
        _begin(job, m, out)
        ended = place.run(job.command(m, "out"))
        if ended.code:
            raise RuntimeError(f"{job.name} does not run: {ended.err[-2000:]}")
        cpu.write_text(str(ended.cpu))
    return out, float(cpu.read_text())


def killed(
    job: Job,
    m: Materials,
    references: Path,
    folder: Path,
    number: int,
    seed: int,
    *,
    fresh: bool = False,
) -> Killed:
    """Send ``number`` at a random moment, go on as the user is told, and compare.

    fresh: in a process that imports for itself, as users start it.
    """
    whole, cpu = reference(job, m, references)
    place = Place(folder).make()
    out = place.at / "out"
    _begin(job, m, out)
    share = random.Random(seed).uniform(0.03, 0.97)
    moment = share * (cpu + (8.0 if fresh else 0.0))
    running = (place.started if fresh else place.forked)(job.command(m, "out"))
    was_in_time = running.wait_until(lambda used: used >= moment)
    if was_in_time:
        if number == signal.SIGINT:
            running.send(number)
        else:
            os.kill(running.pid, number)
    first = running.end()
    orphans = _orphans(running)
    _age(place.temporary)
    more = _gone_on(job, m, place)
    ended = [first, *more]
    stopped = number != signal.SIGKILL
    unclear = ""
    is_clear = first.code == 0 or (first.code == 1 and len(first.told) == 1)
    if was_in_time and stopped and not fresh and not is_clear:
        unclear = f"exit {first.code}: {first.err[-300:]}"
    lost = [f"exit {ended[-1].code}: {ended[-1].err[-400:]}"] if more and more[-1].code else []
    return Killed(
        any(each.code is None for each in ended),
        any(each.has_traceback for each in ended),
        tuple(lost or different(whole, out, stopped=stopped)),
        tuple(doubled(out)),
        (*half_written(place.at), *_names(place.temporary), *orphans),
        unclear,
        was_in_time,
        f"at {share:.2f}: {' '.join(first.told)}",
    )


def _gone_on(job: Job, m: Materials, place: Place) -> list[Ended]:
    """By ``--resume`` where the job has it and a run had begun, else by the command again."""
    if job.go_on is not None:
        ended = place.run(job.go_on("out"))
        if ended.code != 2:
            return [ended]
        return [ended, place.run(job.command(m, "out"))]
    if job.name == "clean" and (place.at / "out").exists():
        return []  # put in place whole, and no second one is put over it
    return [place.run(job.command(m, "out"))]


def twice(job: Job, m: Materials, references: Path, folder: Path, *, resumed: bool) -> Killed:
    """Two of the same command at once; ``resumed``: of a run that was killed half-way."""
    whole, cpu = reference(job, m, references)
    place = Place(folder).make()
    out = place.at / "out"
    _begin(job, m, out)
    command = job.command(m, "out")
    if resumed:
        first = place.forked(command)
        first.wait_until(lambda used: used >= 0.5 * cpu)
        first.send(signal.SIGKILL)
        first.end()
        _age(place.temporary)
        command = job.go_on("out") if job.go_on else command
    both = [place.forked(command) for _ in range(2)]
    ended = [each.end() for each in both]
    codes = sorted(-1 if each.code is None else each.code for each in ended)
    refused = next((each for each in ended if each.code == 2), None)
    words = " ".join(refused.told) if refused else ""
    ok = codes == [0, 2] and len(refused.told) == 1 and "out" in words if refused else False
    lost = [] if 0 in codes else [f"exits {codes}: {ended[0].err[-300:]}"]
    return Killed(
        any(each.code is None for each in ended),
        any(each.has_traceback for each in ended),
        tuple(lost or different(whole, out)),
        tuple(doubled(out)) + (("both",) if codes == [0, 0] else ()),
        (*half_written(place.at), *_names(place.temporary)),
        "" if ok or codes == [0, 0] else f"exits {codes}: {words}",
        words=words,
    )


def _begin(job: Job, m: Materials, out: Path) -> None:
    if job.begins_with:
        shutil.copytree(m.run(job.begins_with), out)


def _orphans(running: Running) -> list[str]:
    """Processes of the command that are still there half a minute after its end."""
    for _ in range(60):
        if not running.group():
            return []
        time.sleep(0.5)
    found = running.group()
    running.send(signal.SIGKILL)
    return [f"process {each}" for each in found]


def _age(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        past = time.time() - _SETTLED
        os.utime(path, (past, past), follow_symlinks=False)


def _names(folder: Path) -> list[str]:
    return [f"tmp/{path.relative_to(folder)}" for path in folder.rglob("*")]
