"""A process beside a job's own: does one task after the other, and ends when that one does.

Lines of JSON on standard input say what to do, lines on standard output what happens; what a task
prints itself goes to the log, standard error. Started by ``side_by_side`` alone.
"""

import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import ask_to_stop, stop_on_interrupt
from heldout.core.progress import Progress
from heldout.core.spelling import in_flags

_Tasks: TypeAlias = queue.SimpleQueue[dict[str, Any] | None]


def main() -> None:
    """Until the job says that there is no more to do; that spells arguments as its caller does."""
    with in_flags():
        _work()


def _work() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    tasks: _Tasks = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()

    def tell(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")

    with stop_on_interrupt() as request:
        while (task := tasks.get()) is not None:
            print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {task['name']}", file=sys.stderr)
            tell(**_ended(task, _Told(tell), request))


def _listen(tasks: _Tasks) -> None:
    """Hand on what the job says. Its end closes the pipe: then this process ends at once."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "task" in message:
            tasks.put(message["task"])
        elif "stop" in message:
            ask_to_stop()
        else:
            tasks.put(None)
            return
    os._exit(1)


def _ended(task: dict[str, Any], progress: Progress, request: Any) -> dict[str, Any]:
    """Do the task; how it ended."""
    try:
        function = getattr(importlib.import_module(task["module"]), task["function"])
        with _libraries(task["threads"]):
            function(progress, request, **task["arguments"])
            peak_gb = _peak_gb()
    except Interrupted:
        return {"ended": "interrupted"}
    except UserError as error:
        return {"ended": "refused", "kind": type(error).__name__, "message": str(error)}
    except OSError as error:
        traceback.print_exc()
        known = [error.errno, error.strerror or str(error), error.filename]
        return {"ended": "system", "arguments": json.loads(json.dumps(known, default=str))}
    except Exception as error:
        traceback.print_exc()
        return {"ended": "failed", "message": f"{type(error).__name__}: {error}"}
    return {"ended": "done", "peak_gb": peak_gb}


@contextmanager
def _libraries(threads: int) -> Iterator[None]:
    """Torch computes with so many threads and is quiet, in tasks that use it."""
    if "torch" not in sys.modules:
        yield
        return
    from heldout.jobs.kit.places import Places, threads_of
    from heldout.lm.quiet import quiet_libraries

    with threads_of(Places(2, threads)), quiet_libraries():
        yield


def _peak_gb() -> float:
    if "torch" not in sys.modules:
        return 0.0
    from heldout.jobs.kit.peak_memory import peak_gb

    return peak_gb()


class _Told(Progress):
    """Tells the job's process, which draws it."""

    def __init__(self, tell: Callable[..., None]):
        self.tell = tell

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        self.tell(stage=name, total=total)
        try:
            yield
        finally:
            self.tell(left=True)

    def advance(self, num: int = 1, text: str = "") -> None:
        self.tell(advance=num, text=text)

    def note(self, text: str) -> None:
        self.tell(note=text)


if __name__ == "__main__":
    main()
