"""Two builds beside each other, and one command of either as a measured process.

The old build is taken out of the git history once, into a folder of its own; both run in this
environment, whose packages meet the needs of both, and find their modules through ``PYTHONPATH``.
"""

import ctypes
import hashlib
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OLD_COMMIT = "fba7634"
_PR_SET_CHILD_SUBREAPER = 36
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Build:
    """A tree of sources, and a word that changes where they do."""

    name: str
    source: Path
    version: str


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds of all its processes together, seconds of the clock, bytes."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int  # of its largest process

    def to_json(self) -> dict[str, float]:
        return vars(self)


def builds(work: Path) -> dict[str, Build]:
    """``old`` and ``new``; the old one is written to ``work`` where it is not there yet."""
    old = work / OLD_COMMIT
    if not (old / "done").exists():
        archive = subprocess.run(
            ["git", "archive", OLD_COMMIT, "src"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as file:
            file.extractall(old, filter="data")
        (old / "done").touch()
    return {
        "old": Build("old", old / "src", OLD_COMMIT),
        "new": Build("new", ROOT / "src", digest_of(ROOT / "src")),
    }


def digest_of(folder: Path) -> str:
    """Of all sources under the folder, so that a figure of other code is not taken for this one."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in {".py", ".toml"}:
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def environment_of(build: Build, threads: int, work: Path) -> dict[str, str]:
    """``threads`` 0: as a user would start it. Each build has a cache of its own."""
    found = {key: value for key, value in os.environ.items() if key not in _THREADS}
    found |= {
        "PYTHONPATH": str(build.source),
        "PYTHONDONTWRITEBYTECODE": "",
        "HELDOUT_CACHE": str(work / f"cache-{build.name}"),
        "HF_HUB_OFFLINE": "1",
    }
    if threads:
        found |= dict.fromkeys(_THREADS, str(threads))
        found["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
    else:
        found.pop("TOKENIZERS_PARALLELISM", None)
    return found


def measured(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Cost:
    """Run to the end and wait for every process that it has left behind.

    Raises RuntimeError with the end of what it printed where it fails.
    """
    # Processes whose parent ends first become children of this one, and are counted, too.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=log.parent)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss
    while True:
        try:
            _, _, used = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu, peak = cpu + used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss)
    if child.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"exit code {child.returncode} of {' '.join(command)}\n{said}")
    return Cost(cpu, wall, peak * resource_unit())


def resource_unit() -> int:
    """Bytes in one of ``ru_maxrss``."""
    return 1 if sys.platform == "darwin" else 1024


def inside(task: str, out: Path, *arguments: str) -> list[str]:
    """The command that runs a task of ``fit_speed_inside.py`` and leaves its figures in ``out``."""
    script = Path(__file__).with_name("fit_speed_inside.py")
    return [sys.executable, str(script), task, str(out), *arguments]


def heldout(*arguments: str) -> list[str]:
    """The command ``heldout`` of the build that the environment names."""
    return [sys.executable, "-m", "heldout", *arguments]


class Log:
    """One line for each finished measurement, written at once: a run that is killed goes on."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # cut off by a kill
                continue
        return found

    def append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(line))


def self_and_children_seconds() -> float:
    """CPU seconds of this process and of all that it has started, ended or not."""
    import psutil

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
