"""Progress on the terminal: one bar with time left, and lines that stay."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from heldout.cli.console import Console
from heldout.core.language import say
from heldout.core.progress import Progress


class ConsoleProgress(Progress):
    """Draws on standard error, so that standard output holds results only."""

    def __init__(self, console: Console, bars: Bars, name: str = ""):
        """``name``: what its lines begin with, where they stand among those of other work."""
        self.console = console
        self.bars = bars
        self.name = name
        self.tasks: list = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        task = self.bars.add_task(say(name), total=total, text="")
        self.tasks.append(task)
        if not self.console.is_terminal:
            self.console.print(f"{say(name)} ...", markup=False)
        try:
            yield
        finally:
            self.tasks.pop()
            self.bars.remove_task(task)

    def advance(self, num: int = 1, text: str = "") -> None:
        if not self.tasks:
            return
        task = self.tasks[-1]
        if text:
            self.bars.update(task, advance=num, text=say(text))
            if not self.console.is_terminal:
                done = next(t.completed for t in self.bars.tasks if t.id == task)
                self.console.print(f"  {self._label}{done:.0f}: {say(text)}", markup=False)
        else:
            self.bars.update(task, advance=num)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False)

    def beside(self, name: str) -> "ConsoleProgress":
        return ConsoleProgress(self.console, self.bars, name)

    @property
    def _label(self) -> str:
        return f"{say(self.name)}, " if self.name else ""


@contextmanager
def console_progress() -> Iterator[ConsoleProgress]:
    """Bars while the block runs; plain lines where standard error is no terminal."""
    console = Console(stderr=True)
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn(say("left")),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:
        yield ConsoleProgress(console, bars)
