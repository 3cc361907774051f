"""Runs that change, stop, or are started twice, and then go on."""

import shutil
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import faults_disks
import faults_kills
import faults_runs
from faults_equal import different, doubled, half_written
from faults_materials import Materials
from faults_processes import Ended, Place
from faults_refused import Case, Entry, Refusal


def stopped_cases(m: Materials, seed: int) -> Iterator[Case]:
    yield from _of_changes(m)
    yield from _of_kills(m, seed)
    yield from _of_disks(m, seed)


def _of_changes(m: Materials) -> Iterator[Case]:
    for name, pattern in faults_runs.CHANGED:

        def run(folder: Path, name: str = name, pattern: str = pattern) -> Entry:
            def make(at: Path) -> list[str]:
                return faults_runs.changed(name, m, at)

            return Refusal(make, [pattern]).run(folder)

        yield Case("changes", f"resumed where {name}", run)

    def moved(folder: Path) -> Entry:
        place = Place(folder).make()
        command = faults_runs.changed("it was moved", m, place.at)
        (place.at / "run").rename(place.at / "elsewhere")
        ended = place.run([*command[:-1], "elsewhere"])
        return _ended_well(ended, m.run("fit"), place.at / "elsewhere")

    def finished(folder: Path) -> Entry:
        place = Place(folder).make()
        run = Path(shutil.copytree(m.run("fit"), place.at / "run"))
        return _ended_well(place.run(["fit", "--resume", "run"]), m.run("fit"), run)

    yield Case("changes", "resumed where the run was moved", moved)
    yield Case("changes", "resumed where the run has ended", finished)


def _ended_well(ended: Ended, whole: Path, run: Path) -> Entry:
    return {
        "code": ended.code,
        "tracebacks": ended.has_traceback,
        "hangs": ended.code is None,
        "lost": [ended.err[-300:]] if ended.code else different(whole, run),
        "doubled": doubled(run),
        "rubbish_left": half_written(run),
        "unclear": "",
    }


def _of_kills(m: Materials, seed: int) -> Iterator[Case]:
    signals = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
    jobs = faults_kills.jobs(m)
    names = list(signals)
    for place, job in enumerate(jobs.values()):
        for turn, (name, number) in enumerate(signals.items()):
            often = 3 if job.name == "fit" else int(turn == place % len(names))
            for which in range(often):
                label = f"{job.name} stopped by {name}, {which + 1}"
                of = hash_of(label, seed)

                def run(
                    folder: Path, job: faults_kills.Job = job, number: int = number, of: int = of
                ) -> Entry:
                    return _told(
                        faults_kills.killed(job, m, m.folder / "references", folder, number, of)
                    )

                yield Case("kills", label, run)
    for name, number in list(signals.items())[:2]:

        def fresh(folder: Path, number: int = number, name: str = name) -> Entry:
            of = hash_of(name, seed)
            job = jobs["fit"]
            return _told(
                faults_kills.killed(job, m, m.folder / "references", folder, number, of, fresh=True)
            )

        yield Case("kills", f"python -m heldout fit stopped by {name}", fresh)
    for job in jobs.values():
        for resumed in (False, True):

            def both(folder: Path, job: faults_kills.Job = job, resumed: bool = resumed) -> Entry:
                references = m.folder / "references"
                return _told(faults_kills.twice(job, m, references, folder, resumed=resumed))

            if job.name in ("fit", "clean", "capacity"):
                how = "gone on with" if resumed else "started"
                yield Case("twice", f"{job.name} {how} twice at once", both)


def _of_disks(m: Materials, seed: int) -> Iterator[Case]:
    jobs = faults_kills.jobs(m)
    for place, job in enumerate(jobs.values()):
        for read_only in (False, True):
            often = 2 if job.name == "fit" else int(read_only == bool(place % 2))
            for which in range(often):
                label = f"{job.name}, disk {'read-only' if read_only else 'full'}, {which + 1}"

                def run(
                    folder: Path,
                    job: faults_kills.Job = job,
                    read_only: bool = read_only,
                    of: int = hash_of(label, seed),
                ) -> Entry:
                    references = m.folder / "references"
                    return _told(
                        faults_disks.stopped_by_disk(
                            job, m, references, folder, of, read_only=read_only
                        )
                    )

                yield Case("disks", label, run)


def hash_of(label: str, seed: int) -> int:
    return zlib.crc32(f"{seed} {label}".encode())


def _told(found: faults_kills.Killed) -> Entry:
    return {
        "tracebacks": found.traceback,
        "hangs": found.hung,
        "lost": list(found.lost),
        "doubled": list(found.doubled),
        "rubbish_left": list(found.rubbish),
        "unclear": found.unclear,
        "was_in_time": found.was_in_time,
        "line": found.words,
    }
