"""One trial of a learning rate: where that is fair, the beginning of the training at this rate."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from heldout.core.errors import TrainingDiverged
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Decision, Evaluation, Stop
from heldout.core.run_files import RateTrial
from heldout.jobs.kit.beginning import SEARCH, Beginning, Logged
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.prepare import load_prepared
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.jobs.kit.trial import try_training
from heldout.search.lost_trials import further_fall, has_lost
from heldout.training.arguments import warmup_steps
from heldout.training.better_weights import better_weights
from heldout.training.keeper import decision_of
from heldout.training.loop import Pause, Schedule, train


def try_rate(
    context: RunContext, rate: float, best: RateTrial | None, *, stops_lost: bool = True
) -> RateTrial:
    """Train a fresh model at ``rate`` for the steps of the recipe's search.

    ``best`` is the best trial so far, ``stops_lost`` whether the trial ends once it can surely not
    become the best. The trial's ``Beginning`` lies in the run where it can be gone on from, and
    takes the place of that of ``best`` where it is better.
    """
    began = time.monotonic()
    name, recipe = f"learning rate {rate:g}", context.recipe
    setup = TrainingSetup.of(context)
    full = Schedule.of(len(setup.windows), recipe)
    steps = trial_steps(full, recipe)
    if not is_beginning(full, recipe):
        found = try_training(context, setup, name, learning_rate=rate, steps=steps)
        nll = None if found is None else found.nats_per_token
        return RateTrial(rate, nll, steps, seconds=time.monotonic() - began)
    kept = Beginning.of(context.run, rate)
    if (known := kept.trial(recipe)) is not None:
        return known
    kept.start()
    watch = _Watch(context, setup, kept, rate, steps, full, best, stops_lost)
    training = setup.training(
        context, learning_rate=rate, schedule=full, folder=kept.folder, is_tracked=False
    )
    reached: int | None = None
    with context.progress.stage(name, steps):
        try:
            outcome = train(
                training,
                on_evaluate=watch.evaluate,
                put_back=watch.put_back,
                checkpoints=False,
                should_stop=context.stop,
                progress=context.progress,
                pause=Pause(steps, watch.leads_at),
            )
            context.check_interrupt(outcome.interrupted)
            reached = outcome.step
        except TrainingDiverged:
            pass
    seconds = time.monotonic() - began
    if reached is None:
        trial = RateTrial(rate, None, steps, seconds=seconds)
    else:
        trial = RateTrial(rate, watch.nll, reached, watch.has_lost, seconds)
    kept.end(trial, recipe, watch.logged)
    return trial


def trial_steps(full: Schedule, recipe: Recipe) -> int:
    """Optimizer steps of a trial that is not stopped early."""
    epochs, most = recipe.search.epochs, min(recipe.search.max_steps, full.max_steps)
    return min(most, max(1, round(full.steps_per_epoch * epochs))) if epochs else most


def search_in_words(full: Schedule, recipe: Recipe) -> str:
    """What the search will cost, for a plan."""
    num, steps = len(recipe.search.learning_rates), trial_steps(full, recipe)
    num = num or recipe.search.max_trials
    if is_beginning(full, recipe):
        return (
            f"found by up to {num} trials of up to {steps} steps, of which the best one's are the "
            "first of the run"
        )
    return f"found by up to {num} trials of {steps} steps before the run"


def is_beginning(full: Schedule, recipe: Recipe) -> bool:
    """Whether trials are the first part of the training with the schedule ``full``.

    Not where the rate falls: that a high rate is noisy before it has fallen says little of what it
    reaches. Nor where half of a trial would pass before the rate has risen.
    """
    steps = trial_steps(full, recipe)
    has_risen = steps >= 2 * warmup_steps(recipe, full.max_steps)
    return recipe.train.schedule == "constant" and has_risen and steps <= full.max_steps


@dataclass
class _Watch:
    """Measures a trial as the training that goes on from it would, and knows when it has lost.

    The loss on training rows is left to that training, which reads it off the weights kept here.
    """

    context: RunContext
    setup: TrainingSetup
    kept: Beginning
    rate: float
    steps: int
    schedule: Schedule
    best: RateTrial | None
    stops_lost: bool
    logged: list[Logged] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    has_lost: bool = False
    lowest: DocumentLosses = field(init=False)

    def __post_init__(self) -> None:
        path = self.context.run.path(f"{SEARCH}/base.npz")
        if not path.exists():
            self._measured().save(path)
        self._keep(Evaluation(0, 0.0, DocumentLosses.load(path)), None, 0.0)

    def evaluate(
        self, step: int, epoch: float, training_loss: float, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        with self._better_weights(step, epoch) as found:
            self._keep(found, training_loss, learning_rate)
            self.has_lost = step < self.steps and self._has_lost(step)
            if self.has_lost:
                return Stop("it can surely not become the best"), {}
            if step < self.steps or self._leads:
                save_model(self.setup.model, self.setup.tokenizer, self.kept.weights(step))
        return decision_of(self.setup.regularizers, self.evaluations), {}

    def put_back(self) -> None:
        """Load the best weights so far."""
        best = min(self.evaluations, key=lambda each: each.validation.nats_per_token)
        path = self.kept.weights(best.step)
        if best.step == 0:  # the model as it came, which was not kept
            fresh, tokenizer = load_prepared(self.context.target, self.context.recipe)
            save_model(fresh, tokenizer, path)
        load_weights(self.setup.model, path)

    def leads_at(self, step: int) -> bool:
        """Whether it is the best so far, at its end; then the files of the one before go."""
        if self.has_lost:
            return False
        if self.evaluations[-1].step != step:  # the training has no evaluation here
            with self._better_weights(step, step / self.schedule.steps_per_epoch) as found:
                self._measure(found)
        if self._leads and self.best is not None:
            Beginning.of(self.context.run, self.best.learning_rate).remove()
        return self._leads

    @property
    def nll(self) -> float:
        """The lowest so far in nats per token: what the training would keep."""
        return self.lowest.nats_per_token

    @property
    def _leads(self) -> bool:
        if self.best is None:
            return True
        return (self.nll, self.rate) < (self.best.loss, self.best.learning_rate)

    def _has_lost(self, step: int) -> bool:
        if self.best is None or not self.stops_lost:
            return False
        best_lowest = Beginning.of(self.context.run, self.best.learning_rate).lowest()
        warmup = warmup_steps(self.context.recipe, self.schedule.max_steps)
        more = further_fall(step, self.steps, warmup)
        if best_lowest is None or more is None:
            return False
        return has_lost(self.evaluations[0].validation, self.lowest, best_lowest, more)

    def _measured(self) -> DocumentLosses:
        rows = self.context.texts.validation
        return losses_of(self.setup.model, self.setup.tokenizer, rows, self.context.recipe)

    def _better_weights(self, step: int, epoch: float) -> AbstractContextManager[Evaluation]:
        setup = self.setup
        return better_weights(setup.model, setup.regularizers, self._measured, step, epoch)

    def _keep(self, found: Evaluation, training_loss: float | None, learning_rate: float) -> None:
        self._measure(found)
        at = Logged(found.step, found.epoch, training_loss, learning_rate, found.weights)
        self.logged.append(at)
        self.evaluations.append(found)

    def _measure(self, found: Evaluation) -> None:
        self.kept.save_losses(found)
        if self.evaluations and found.validation.nats_per_token > self.nll:
            return
        self.lowest = found.validation
