"""The stages of a job: the status while they run, and how a run is left that does not end well."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from heldout.core.environment import without_home
from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import StopRequest, stop_on_interrupt
from heldout.core.run import Run
from heldout.core.secrets import without_secrets
from heldout.jobs.kit.peak_memory import peak_gb
from heldout.lm.flat_trial import padding
from heldout.lm.quiet import quiet_libraries


class StatusClock:
    """Writes ``status.json`` with the seconds that all sessions of a run have taken so far."""

    def __init__(self, run: Run, *, with_memory: bool):
        """``with_memory``: whether the peak of memory is kept, too."""
        self.run = run
        self.with_memory = with_memory
        self.others_gb = 0.0  # that processes beside this one have held
        self.start = time.monotonic()
        self.earlier_seconds = run.status.get("seconds", 0.0)
        self.earlier_gb = run.status.get("peak_gb", 0.0)
        self.parts: dict[str, float] = dict(run.status.get("parts", {}))
        self.part = ""
        self.part_began = self.start

    @property
    def seconds(self) -> float:
        """That all sessions have taken so far."""
        return self.earlier_seconds + time.monotonic() - self.start

    def begin(self, part: str) -> None:
        """What follows belongs to ``part``; the status tells the seconds of each."""
        self._count()
        self.part = part
        self.tick()

    def _count(self) -> None:
        now = time.monotonic()
        if self.part:
            self.parts[self.part] = self.parts.get(self.part, 0.0) + now - self.part_began
        self.part_began = now

    def tick(self) -> None:
        """Bring the figures up to date while the run goes on."""
        self.write("training")

    def write(self, state: str, **details: Any) -> None:
        """``state`` as ``Run.write_status`` takes it."""
        self._count()
        figures: dict[str, Any] = {"seconds": self.seconds}
        if self.parts:
            figures["parts"] = self.parts
        if self.with_memory:
            figures["peak_gb"] = max(self.earlier_gb, peak_gb() + self.others_gb)
        self.run.write_status(state, **figures, **details)


@contextmanager
def stages_of(
    run: Run, *, with_memory: bool, after_failure: Callable[[], None] = lambda: None
) -> Iterator[tuple[StatusClock, StopRequest]]:
    """The status is ``training`` in the block, and then complete, interrupted or failed.

    In the block libraries are quiet, and Ctrl-C sets the request; a second one becomes Interrupted
    at once. ``after_failure`` is called on UserError and on Interrupted of the first, before they
    go on to the caller.
    """
    clock = StatusClock(run, with_memory=with_memory)
    try:
        with quiet_libraries(), padding(run.recipe.train.padding), stop_on_interrupt() as request:
            clock.write("training", message="")
            yield clock, request
    except Interrupted as stopped:
        clock.write("interrupted", message="stopped by the user")
        after_failure()
        stopped.run = run.folder
        raise
    except KeyboardInterrupt:
        clock.write("interrupted", message="stopped by the user")
        at_once = Interrupted("")
        at_once.run, at_once.at_once = run.folder, True
        raise at_once from None
    except UserError as error:
        clock.write("failed", message=without_secrets(without_home(str(error))))
        after_failure()
        raise
    clock.write("complete", message="")
