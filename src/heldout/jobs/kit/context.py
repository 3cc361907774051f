"""What the trainings of a run share."""

from dataclasses import dataclass

from heldout.core.errors import Interrupted
from heldout.core.interrupt import StopRequest
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.jobs.kit.parts import Texts
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

    def stop(self) -> bool:
        """Whether the user has asked to stop."""
        return bool(self.request)

    def check_interrupt(self, interrupted: bool = False) -> None:
        """Raise Interrupted if a training was interrupted, or the user has asked to stop."""
        if interrupted or self.request:
            raise Interrupted
