"""What the trainings of a run share."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heldout.core.errors import Interrupted
from heldout.core.interrupt import StopRequest
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.jobs.kit.parts import Texts, load_parts
from heldout.jobs.kit.places import ALONE, Places
from heldout.jobs.kit.side_by_side import SideBySide
from heldout.jobs.kit.target import Target


@dataclass(frozen=True)
class RunContext:
    """A run at work: what is trained on which rows by which recipe, and whether to stop."""

    run: Run
    target: Target
    recipe: Recipe
    texts: Texts
    progress: Progress
    request: StopRequest
    places: Places = ALONE

    @classmethod
    def of_run(
        cls, known: dict[str, Any], progress: Progress, request: StopRequest
    ) -> "RunContext":
        """The context of a run with its own recipe and rows, from what ``told`` gave."""
        run = Run(Path(known["run"]))
        target = Target(**known["target"])
        return cls(run, target, run.recipe, load_parts(run).texts, progress, request)

    @property
    def told(self) -> dict[str, Any]:
        """Which run this is, in JSON, for a process beside this one."""
        return {"run": str(self.run.folder.resolve()), "target": asdict(self.target)}

    def side_by_side(self) -> SideBySide:
        """Does tasks of this run beside each other, as its places allow."""
        return SideBySide(self.places, self.progress, self.request, self.run.path("logs"))

    def stop(self) -> bool:
        """Whether the user has asked to stop."""
        return bool(self.request)

    def check_interrupt(self, interrupted: bool = False) -> None:
        """Raise Interrupted if a training was interrupted, or the user has asked to stop."""
        if interrupted or self.request:
            raise Interrupted
