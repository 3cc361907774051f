"""What watches a trial of any search: its losses, and whether it can still become the best."""

from collections.abc import Callable
from dataclasses import dataclass, field

from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import Decision, Evaluation, Stop
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.search.lost_trials import further_fall, has_lost
from heldout.search.tried import by_group
from heldout.training.arguments import warmup_steps
from heldout.training.better_weights import better_weights
from heldout.training.keeper import decision_of
from heldout.training.loop import Schedule

# (evaluation, mean training loss since the last one, learning rate)
Keep = Callable[[Evaluation, float | None, float], None]


@dataclass
class TrialWatch:
    """Measures a trial at its evaluations as a run would, and stops it once it has lost.

    ``steps`` is where the trial ends, ``best`` the lowest losses of the best trial before it, None
    where it is never stopped; before step ``grace`` it is not. ``keep`` is called while the model
    holds the weights that were measured, when ``has_lost`` has been decided.
    """

    context: RunContext
    setup: TrainingSetup
    schedule: Schedule
    steps: int
    best: DocumentLosses | None
    grace: float = 0.0
    keep: Keep = lambda *_: None
    evaluations: list[Evaluation] = field(default_factory=list)
    has_lost: bool = False
    lowest: DocumentLosses = field(init=False)  # so far: what a run would keep

    def begin(self, base: Evaluation | None = None) -> None:
        """With the losses of the model as it came, measured here unless they are given."""
        if base is not None:
            self._add(base, None, 0.0)
            return
        with better_weights(
            self.setup.model, self.setup.regularizers, self.measured, 0, 0.0
        ) as found:
            self._add(found, None, 0.0)

    def evaluate(
        self, step: int, epoch: float, training_loss: float, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        """For ``train``'s ``on_evaluate``."""
        setup = self.setup
        with better_weights(setup.model, setup.regularizers, self.measured, step, epoch) as found:
            self._add(found, training_loss, learning_rate)
        if self.has_lost:
            return Stop("it can surely not become the best"), {}
        return decision_of(setup.regularizers, self.evaluations), {}

    def look_at(self, step: int) -> Evaluation | None:
        """Measure where the trial ends between two evaluations; None where it has been measured."""
        if self.evaluations[-1].step == step:
            return None
        setup, epoch = self.setup, step / self.schedule.steps_per_epoch
        with better_weights(setup.model, setup.regularizers, self.measured, step, epoch) as found:
            self._lower(found)
        return found

    def measured(self) -> DocumentLosses:
        """Of the validation rows, by the model as it is."""
        rows, recipe = self.context.texts.validation, self.context.recipe
        return losses_of(self.setup.model, self.setup.tokenizer, rows, recipe)

    @property
    def num_looks(self) -> int:
        """How often the validation rows were measured, averages of weights too."""
        return sum(len(each.by_weights) for each in self.evaluations)

    def _add(self, found: Evaluation, training_loss: float | None, learning_rate: float) -> None:
        self._lower(found)
        self.evaluations.append(found)
        self.has_lost = self.grace <= found.step < self.steps and self._falls_short(found.step)
        self.keep(found, training_loss, learning_rate)

    def _lower(self, found: Evaluation) -> None:
        losses = found.validation
        if not self.evaluations or losses.nats_per_token <= self.lowest.nats_per_token:
            self.lowest = losses

    def _falls_short(self, step: int) -> bool:
        if self.best is None or step == 0:
            return False
        warmup = warmup_steps(self.context.recipe, self.schedule.max_steps)
        more = further_fall(step, self.steps, warmup)
        if more is None:
            return False
        base, now, best = map(by_group, (self.evaluations[0].validation, self.lowest, self.best))
        return has_lost(base, now, best, more)
