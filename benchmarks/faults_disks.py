"""Disks that are full or read-only, from the start or from a random moment on.

Each is a memory file system of its own, mounted where nobody else sees it (``unshare``).
"""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults_equal import different, doubled, half_written
from faults_kills import Job, Killed, reference
from faults_materials import Materials
from faults_processes import Place

_MIB = 256


def can_mount(folder: Path) -> bool:
    try:
        with disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def disk(folder: Path, mib: int = _MIB) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    call = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "faults", str(folder)]
    subprocess.run(call, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def make_read_only(folder: Path, *, again: bool = False) -> None:
    words = "remount,rw" if again else "remount,ro"
    subprocess.run(["mount", "-o", words, str(folder)], check=True, capture_output=True)


def fill(folder: Path) -> Path:
    """A file that takes all that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x")
    return path


def stopped_by_disk(
    job: Job, m: Materials, references: Path, folder: Path, seed: int, *, read_only: bool
) -> Killed:
    """The disk of ``out`` becomes full, or read-only, at a random moment; then it is as before."""
    whole, cpu = reference(job, m, references)
    place = Place(folder).make()
    share = random.Random(seed).uniform(0.03, 0.97)
    with disk(place.at):
        out = place.at / "out"
        if job.begins_with:
            shutil.copytree(m.run(job.begins_with), out)
        running = place.forked(job.command(m, "out"))
        was_in_time = running.wait_until(lambda used: used >= share * cpu)
        filler = place.at / "filler"
        if read_only:
            with suppress(subprocess.CalledProcessError):  # busy while a file is being written
                make_read_only(place.at)
        else:
            fill(place.at)
        first = running.end()
        if read_only:
            make_read_only(place.at, again=True)
        filler.unlink(missing_ok=True)
        is_done = first.code == 0 and job.go_on is None
        begun = (out / "environment.json").exists() and job.go_on is not None
        command = job.go_on("out") if begun and job.go_on else job.command(m, "out")
        second = first if is_done else place.run(command)
        words = " ".join(first.told)
        says = "read-only|Read-only" if read_only else "disk is full|disk"
        is_clear = first.code == 0 or (
            first.code == 2
            and len(first.told) == 1
            and any(word in words for word in says.split("|"))
        )
        lost = [f"exit {second.code}: {second.err[-400:]}"] if second.code else []
        return Killed(
            None in (first.code, second.code),
            first.has_traceback or second.has_traceback,
            tuple(lost or different(whole, out)),
            tuple(doubled(out)),
            (*half_written(place.at), *(p.name for p in place.temporary.rglob("*"))),
            "" if is_clear else f"exit {first.code}: {first.err[-300:]}",
            was_in_time,
            f"at {share:.2f}: {words}",
        )
