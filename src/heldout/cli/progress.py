"""Progress on the terminal: one line with the time left, and lines that stay."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from heldout.cli.console import Console
from heldout.core.job_time import JobPart, JobTime, in_words
from heldout.core.language import say
from heldout.core.progress import Progress


class ConsoleProgress(Progress):
    """Draws on standard error, so that standard output holds results only.

    Of a job whose parts are known there is one line, of all of it; else a line for each stage.
    """

    def __init__(self, console: Console, bars: Bars, name: str = "", within: Self | None = None):
        """``name``: what its lines begin with, as work beside that of ``within``."""
        self.console = console
        self.bars = bars
        self.name = name
        self.within = within
        self.tasks: list = []
        self.counts: list[int] = []  # of the stages that are open
        self.whole: JobTime | None = within.whole if within else None
        self.line: Any = within.line if within else None  # of the whole job

    def job(self, parts: Sequence[JobPart], spent: float = 0.0) -> None:
        if self.whole is not None:
            self.bars.remove_task(self.line)
            self.whole = None
        if parts:
            self.whole = JobTime(parts, spent)
            self.line = self.bars.add_task("", total=1.0, text="", job=self.whole)

    def part(self, name: str) -> None:
        if self.whole is None or all(part.name != name for part in self.whole.parts):
            return
        self.whole.begin(name)
        if not self.console.is_terminal:
            where = f"{name}, part {self.whole.place} of {len(self.whole.parts)}"
            self.console.print(f"{say(where)}: {say(left_in_words(self.whole))}", markup=False)
        self._draw(name)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        if not self.console.is_terminal:
            self.console.print(f"{say(name)} ...", markup=False)
        self.counts.append(0)
        if self.whole is not None:
            if self.within is None:
                self._draw(name)
            try:
                yield
            finally:
                self.counts.pop()
            return
        task = self.bars.add_task(say(name), total=total, text="")
        self.tasks.append(task)
        try:
            yield
        finally:
            self.tasks.pop()
            self.counts.pop()
            self.bars.remove_task(task)

    def advance(self, num: int = 1, text: str = "") -> None:
        if self.counts:
            self.counts[-1] += num
            self._tell(text)
        shown: dict[str, Any] = {"text": say(text)} if text else {}
        if self.tasks:
            self.bars.update(self.tasks[-1], advance=num, **shown)
        elif self.whole is not None:
            self.whole.advance(num, self.name)
            shown = shown if self.within is None else {}
            self.bars.update(self.line, completed=self.whole.share, **shown)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False)

    def beside(self, name: str) -> Self:
        return type(self)(self.console, self.bars, name, within=self)

    def _draw(self, name: str) -> None:
        assert self.whole is not None
        self.bars.update(self.line, description=say(name), completed=self.whole.share, text="")

    def _tell(self, text: str) -> None:
        """A figure as a line of its own, where no line can be drawn over."""
        if text and not self.console.is_terminal:
            label = f"{say(self.name)}, " if self.name else ""
            self.console.print(f"  {label}{self.counts[-1]}: {say(text)}", markup=False)


def left_in_words(job: JobTime) -> str:
    """For people."""
    words = in_words(job.left)
    return f"at most {words} left" if job.at_most else f"about {words} left"


class _Done(ProgressColumn):
    """Units of a stage, or the share of a whole job."""

    def render(self, task: Task) -> Text:
        if task.fields.get("job") is not None:
            return Text(f"{task.completed:4.0%}")
        total = "" if task.total is None else f"/{task.total:.0f}"
        return Text(f"{task.completed:.0f}{total}" if total or task.completed else "")


class _Left(ProgressColumn):
    """Time left, once there is something to tell."""

    def render(self, task: Task) -> Text:
        job = task.fields.get("job")
        if job is not None:
            return Text(say(left_in_words(job)))
        if task.time_remaining is None:
            return Text("")
        return Text(say(f"about {in_words(task.time_remaining)} left"))


@contextmanager
def console_progress() -> Iterator[Progress]:
    """A line while the block runs; plain lines where standard error is no terminal."""
    console = Console(stderr=True)
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _Done(),
        TimeElapsedColumn(),
        _Left(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        yield ConsoleProgress(console, bars)
