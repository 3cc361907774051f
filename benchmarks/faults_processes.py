"""Commands as processes of their own: forked from one that has imported, or started as users do."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MOST_CPU, MOST_IDLE = 120.0, 60.0
"""Seconds after which a command hangs: of a processor (the longest takes about 10), or of none."""

MOST_BYTES = 10 * 2**30
"""Of memory: what asks for more ends in a traceback, and takes none from others."""

_ENDS_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux: nothing stays where the benchmark is killed
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``code`` is negative for a signal, None where it hung."""

    code: int | None
    out: str
    err: str
    cpu: float  # seconds

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.err + self.out

    @property
    def told(self) -> list[str]:
        """What it says of its end, one entry a line."""
        lines = self.err.splitlines()
        return [line for line in lines if line.startswith("heldout: ")]


@dataclass
class Running:
    """A command at work in a process group of its own."""

    pid: int
    files: tuple[Path, Path]
    ended: int | None = None
    cpu: float = 0.0
    hung: bool = False

    def group(self) -> list[str]:
        """The stat lines of its processes, from the state on."""
        found = []
        for process in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, IndexError):
                fields = process.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid and fields[0] != "Z":
                    found.append(" ".join(fields))
        return found

    def cpu_so_far(self) -> float:
        """Seconds of the process and of those that it has started."""
        fields = [line.split() for line in self.group()]
        return sum(int(each) for line in fields for each in line[11:15]) / _TICKS

    def is_over(self) -> bool:
        if self.ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.ended = os.waitstatus_to_exitcode(status)
                self.cpu = usage.ru_utime + usage.ru_stime
        return self.ended is not None

    def wait_until(self, moment: Callable[[float], bool] | None = None) -> bool:
        """Whether ``moment``, asked with the seconds of processor so far, came before the end."""
        used, since, looked = 0.0, time.monotonic(), time.monotonic()
        while not self.is_over():
            now = time.monotonic()
            if moment is not None or now - looked > 2.0:
                looked, cpu = now, self.cpu_so_far()
                if moment is not None and moment(cpu):
                    return True
                if cpu > used + 0.1:
                    used, since = cpu, now
                if cpu > MOST_CPU or now - since > MOST_IDLE:
                    self.hung = True
                    self.send(signal.SIGKILL)
            time.sleep(0.02)
        return False

    def send(self, number: int) -> None:
        """To the command and what it has started, as a terminal sends Ctrl-C."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self) -> Ended:
        self.wait_until()
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in self.files)
        return Ended(None if self.hung else self.ended, out, err, self.cpu)


@dataclass(frozen=True)
class Place:
    """Folders of one case: where its commands run, their temporary folder, and their home."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def at(self) -> Path:
        return self.folder / "at"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def make(self) -> "Place":
        for folder in (self.at, self.temporary):
            folder.mkdir(parents=True)
        return self

    def forked(self, arguments: Sequence[str]) -> Running:
        """``heldout ARGUMENTS`` in a copy of this process, which has imported what it needs."""
        files = self._files()
        pid = os.fork()
        if pid:
            with suppress(OSError):
                os.setpgid(pid, pid)
            return Running(pid, files)
        code = 70
        try:
            os.setpgid(0, 0)
            code = _in_child(self, files, arguments)
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def started(self, arguments: Sequence[str]) -> Running:
        """``python -m heldout ARGUMENTS``, a fresh process that imports for itself."""
        files = self._files()
        with files[0].open("wb") as out, files[1].open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "heldout", *arguments],
                cwd=self.at,
                env={**os.environ, "TMPDIR": str(self.temporary), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
        process.returncode = 0  # waited for by its id
        return Running(process.pid, files)

    def run(self, arguments: Sequence[str]) -> Ended:
        return self.forked(arguments).end()

    def _files(self) -> tuple[Path, Path]:
        number = len(list(self.folder.glob("*.out")))
        out, err = (self.folder / f"{number}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        return out, err


def _in_child(place: Place, files: tuple[Path, Path], arguments: Sequence[str]) -> int:
    """What a fresh process would be: its own files, folder, environment and signals."""
    import tempfile

    for number, file in zip((1, 2), files, strict=True):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(place.at)
    ctypes.CDLL(None).prctl(_ENDS_WITH_PARENT, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    os.environ.update({"TMPDIR": str(place.temporary), **place.environment})
    tempfile.tempdir = None
    sys.argv = ["heldout", *arguments]
    from heldout.cli.main import main

    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def in_a_process(make: Callable[[], None]) -> None:
    """Run ``make`` in a copy of this process, so that no thread of a library stays in this one."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            make()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("what a case needs could not be made")


def import_all() -> None:
    """Everything that a command would import, without starting a thread."""
    import gc

    import contourpy  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import heldout.cli.main
    import heldout.jobs.checking.check
    import heldout.jobs.compressing.compress
    import heldout.jobs.counterfactual.counterfactual
    import heldout.jobs.diagnosing.diagnose
    import heldout.jobs.diagnosing.with_texts
    import heldout.jobs.ensembles.distill
    import heldout.jobs.exporting.export_recipe
    import heldout.jobs.fitting.fit
    import heldout.jobs.hyperfitting.hyperfit
    import heldout.jobs.planning.advise
    import heldout.jobs.planning.capacity
    import heldout.jobs.report  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that copies of this process share its memory
