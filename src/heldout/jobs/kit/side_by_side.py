"""Tasks of one job that do not depend on each other, in processes beside the job's own.

A task's state and result lie in files, as those of every stage of a run, so that it can be done in
this process or in another, and gone on with by either.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from heldout.core.errors import Interrupted, TrainingDiverged, UserError
from heldout.core.interrupt import StopRequest
from heldout.core.progress import Progress
from heldout.jobs.kit.places import Places, threads_of

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """``function(progress, request, **arguments)``, a module's, with arguments that JSON holds.

    What was done before, the function finds in files, and does not do again.
    """

    name: str  # as people know it
    function: Callable[..., None]
    arguments: dict[str, Any] = field(default_factory=dict)


class SideBySide:
    """Does tasks, at most ``places.most`` at once with this process as one of them.

    Use it as a context: whatever ends the block ends the other processes too, after their current
    step and with their checkpoints written where it is an Interrupted or a UserError. ``logs`` is
    the folder of what they print.
    """

    def __init__(
        self,
        places: Places,
        progress: Progress,
        request: StopRequest,
        logs: Path,
        on_done: Callable[[], object] = lambda: None,
    ):
        """``on_done`` is called after each task that ended well, also from other threads."""
        self.places = places
        self.on_done = on_done
        self.progress = progress
        self.logs = logs
        self.asked = request
        self._peak_gb: dict[int, float] = {}
        self._lock = threading.Lock()
        self._queue: deque[Task] = deque()
        self._failure: Exception | None = None
        self._interrupted = False
        self._stopping = False
        self._keeps = False
        self._num_waiting = 0
        self._workers: dict[int, _Worker] = {}
        self._threads: list[threading.Thread] = []

    @property
    def has_others(self) -> bool:
        """Whether there are other processes than this one."""
        return self.places.most > 1

    @property
    def peak_gb(self) -> float:
        """The most that the other processes have held, together at most."""
        return sum(self._peak_gb.values())

    @contextmanager
    def kept(self) -> Iterator[None]:
        """In the block other processes wait for further tasks instead of ending; see ``finish``."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False
            while self._num_waiting:  # each notices soon, and takes a task or ends
                time.sleep(_POLL_SECONDS / 4)

    def add(self, *tasks: Task) -> None:
        """Begin with these as places allow; without another process they wait for ``finish``."""
        self._queue.extend(tasks)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        wanted = min(self.places.most - 1 - len(self._threads), len(self._queue))
        for _ in range(wanted):
            number = 1 + len(self._threads)
            thread = threading.Thread(target=self._serve, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def check(self) -> None:
        """Raise what has ended a task so far."""
        if self._failure is not None:
            raise self._failure
        if self._interrupted:
            raise Interrupted

    def finish(self) -> None:
        """Do what no other process has begun, wait for the rest, and raise what went wrong."""
        while (task := self._next()) is not None:
            ours = StopRequest(lambda: bool(self.asked) or self._has_failed)
            try:
                with threads_of(self.places):
                    task.function(self.progress, ours, **task.arguments)
                self.on_done()
            except Interrupted:
                if not self._has_failed:
                    raise
        while self._are_at_work:
            if self.asked or self._has_failed:
                self._stop()
            for thread in self._threads:
                thread.join(_POLL_SECONDS)
        self.check()

    def __enter__(self) -> "SideBySide":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
            return
        try:
            self._stop()
            while isinstance(error, Interrupted | UserError) and any(
                thread.is_alive() for thread in self._threads
            ):
                for thread in self._threads:
                    thread.join(_POLL_SECONDS)
        finally:
            for worker in list(self._workers.values()):
                worker.process.kill()
            for thread in self._threads:
                thread.join()

    @property
    def _has_failed(self) -> bool:
        return self._failure is not None or self._interrupted

    @property
    def _are_at_work(self) -> bool:
        """Whether another process has a task, or has yet to end."""
        with self._lock:
            return sum(thread.is_alive() for thread in self._threads) > self._num_waiting

    def _next(self) -> Task | None:
        with self._lock:
            if self._stopping or self._has_failed or not self._queue:
                return None
            return self._queue.popleft()

    def _next_or_wait(self) -> Task | None:
        """For another process, which is ``kept`` without a task."""
        is_waiting = False
        while True:
            with self._lock:
                has_ended = self._stopping or self._has_failed
                if has_ended or self._queue or not self._keeps:
                    self._num_waiting -= is_waiting
                    return None if has_ended or not self._queue else self._queue.popleft()
                self._num_waiting += not is_waiting
                is_waiting = True
            time.sleep(_POLL_SECONDS)

    def _stop(self) -> None:
        """No further task, and those at work end after their current step."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        for worker in list(self._workers.values()):
            worker.say(stop=True)

    def _serve(self, number: int) -> None:
        """One other process, from its first task to its last."""
        worker: _Worker | None = None
        try:
            while (task := self._next_or_wait()) is not None:
                if worker is None:
                    worker = _Worker(self.places, number, self.logs)
                    self._workers[number] = worker
                if self._stopping:
                    break
                ended = worker.do(task, self.progress.beside(task.name))
                held = ended.get("peak_gb", 0.0)
                self._peak_gb[number] = max(held, self._peak_gb.get(number, 0.0))
                self._interrupted = self._interrupted or ended["ended"] == "interrupted"
                if failure := _failure(task, ended, self.logs):
                    self._failure = self._failure or failure
                elif not self._interrupted:
                    self.on_done()
        except Exception as error:
            self._failure = self._failure or error
        finally:
            if worker is not None:
                self._workers.pop(number, None)
                worker.end()


class _Worker:
    """Another process of Python that does tasks, see ``heldout.jobs.kit.worker``."""

    def __init__(self, places: Places, number: int, logs: Path):
        self.threads = places.threads
        logs.mkdir(parents=True, exist_ok=True)
        # A new session: Ctrl-C reaches this process alone, which tells the others to stop.
        with (logs / f"beside-{number}.log").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "heldout.jobs.kit.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **places.environment(number), "PYTHONPATH": _import_path()},
                start_new_session=True,
            )
        self.lock = threading.Lock()

    def do(self, task: Task, progress: Progress) -> dict[str, Any]:
        """Hand it over and follow it to its end: the last message, or how the process ended."""
        self.say(
            task={
                "name": task.name,
                "module": task.function.__module__,
                "function": task.function.__qualname__,
                "arguments": task.arguments,
                "threads": self.threads,
            }
        )
        stages: list[Any] = []
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                message = json.loads(line)
                if "ended" in message:
                    return message
                _follow(message, progress, stages)
        finally:
            while stages:
                stages.pop().__exit__(None, None, None)
        return {"ended": "died", "code": self.process.wait()}

    def say(self, **message: Any) -> None:
        assert self.process.stdin is not None
        # Where it has ended already, its output tells.
        with self.lock, suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """Let it end, as it has nothing to do."""
        self.say(end=True)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def _follow(message: dict[str, Any], progress: Progress, stages: list[Any]) -> None:
    """Show what another process tells of its work."""
    if "stage" in message:
        stages.append(progress.stage(message["stage"], message["total"]))
        stages[-1].__enter__()
    elif "left" in message:
        stages.pop().__exit__(None, None, None)
    elif "note" in message:
        progress.note(message["note"])
    else:
        progress.advance(message["advance"], message["text"])


def _failure(task: Task, ended: dict[str, Any], logs: Path) -> Exception | None:
    """What to raise here for how a task ended in another process."""
    match ended["ended"]:
        case "refused":
            kind = TrainingDiverged if ended["kind"] == "TrainingDiverged" else UserError
            return kind(ended["message"])
        case "system":
            return OSError(*ended["arguments"])
        case "failed":
            return RuntimeError(f"{task.name}: {ended['message']} (see {logs})")
        case "died":
            code = ended["code"]
            how = signal.Signals(-code).name if code < 0 else str(code)
            return UserError(
                f"{task.name}: its process ended with {how}, as where memory runs out; {logs} has "
                "what it printed. What there is has been kept: go on as after Ctrl-C, with fewer "
                "at once by side_by_side in environment.json or places.json."
            )
    return None


def _import_path() -> str:
    """Where this process finds modules, for another one."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
