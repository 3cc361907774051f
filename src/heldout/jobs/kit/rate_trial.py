"""One trial of a learning rate: where that is fair, the beginning of the training at this rate."""

import time
from dataclasses import replace
from typing import Any

from heldout.core.errors import TrainingDiverged
from heldout.core.interrupt import StopRequest
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation
from heldout.core.run_files import RateTrial
from heldout.jobs.kit.beginning import SEARCH, Beginning, Logged
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import searched_texts
from heldout.jobs.kit.prepare import load_prepared
from heldout.jobs.kit.side_by_side import Task
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.jobs.kit.trial import try_training
from heldout.jobs.kit.trial_watch import TrialWatch
from heldout.training.arguments import warmup_steps
from heldout.training.loop import Pause, Schedule, train


def rate_task(context: RunContext, rate: float, best: RateTrial | None) -> Task:
    """``try_rate`` of the context's run, for another process."""
    before = None if best is None else best.to_json()
    arguments = {"known": context.told, "rate": rate, "best": before}
    return Task(_name(rate), train_rate, arguments)


def train_rate(
    progress: Progress,
    request: StopRequest,
    *,
    known: dict[str, Any],
    rate: float,
    best: dict[str, Any] | None,
) -> None:
    """``try_rate`` on the rows on which the run searches its rate; leaves its ``Beginning``."""
    context = RunContext.of_run(known, progress, request)
    context = replace(context, texts=searched_texts(context.texts, context.recipe))
    try_rate(context, rate, None if best is None else RateTrial.from_json(best))


def try_rate(
    context: RunContext, rate: float, best: RateTrial | None, *, stops_lost: bool = True
) -> RateTrial:
    """Train a fresh model at ``rate`` for the steps of the recipe's search.

    ``best`` is the best trial of earlier rounds, ``stops_lost`` whether the trial ends once it can
    surely not become the best. What has ended already is not done again. The trial's ``Beginning``
    lies in the run, to be gone on from where that can be, and then takes the place of that of
    ``best`` where it is better.
    """
    kept = Beginning.of(context.run, rate)
    if (known := kept.trial(context.recipe)) is not None:
        return known
    began, recipe = time.monotonic(), context.recipe
    kept.start()
    setup = TrainingSetup.of(context)
    full = Schedule.of(len(setup.windows), recipe)
    logged: list[Logged] = []
    if is_beginning(full, recipe):
        trial, logged = _begun(context, setup, kept, rate, full, best, stops_lost)
    else:
        steps = trial_steps(full, recipe)
        found = try_training(context, setup, _name(rate), learning_rate=rate, steps=steps)
        trial = RateTrial(rate, None if found is None else found.nats_per_token, steps)
    trial = replace(trial, seconds=time.monotonic() - began)
    kept.end(trial, recipe, logged)
    context.progress.note(_reached(trial))
    return trial


def _begun(
    context: RunContext,
    setup: TrainingSetup,
    kept: Beginning,
    rate: float,
    full: Schedule,
    best: RateTrial | None,
    stops_lost: bool,
) -> tuple[RateTrial, list[Logged]]:
    """The first part of the training with the schedule ``full``, which can be gone on from."""
    steps = trial_steps(full, context.recipe)
    keeps = _Keeps(context, setup, kept, rate, steps, full, best, stops_lost)
    training = setup.training(
        context, learning_rate=rate, schedule=full, folder=kept.folder, is_tracked=False
    )
    with context.progress.stage(_name(rate), steps):
        try:
            keeps.begin()
            outcome = train(
                training,
                on_evaluate=keeps.watch.evaluate,
                put_back=keeps.put_back,
                checkpoints=False,
                should_stop=context.stop,
                progress=context.progress,
                pause=Pause(steps, keeps.leads_at),
            )
        except TrainingDiverged:
            return RateTrial(rate, None, steps), keeps.logged
    context.check_interrupt(outcome.interrupted)
    return RateTrial(rate, keeps.nll, outcome.step, keeps.watch.has_lost), keeps.logged


def _name(rate: float) -> str:
    return f"learning rate {rate:g}"


def _reached(trial: RateTrial) -> str:
    rate, steps = f"{trial.learning_rate:g}", trial.steps
    if trial.validation_nll is None:
        return f"learning rate {rate}: diverged"
    nll = f"{trial.validation_nll:.3f}"
    if trial.stopped_early:
        return f"learning rate {rate}: {nll} nats/token held-out after {steps} steps, stopped early"
    return f"learning rate {rate}: {nll} nats/token held-out after {steps} steps"


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


class _Keeps:
    """Leaves in files what a training that goes on from the trial needs.

    The loss on training rows is left to that training, which reads it off the weights kept here.
    """

    def __init__(
        self,
        context: RunContext,
        setup: TrainingSetup,
        kept: Beginning,
        rate: float,
        steps: int,
        schedule: Schedule,
        best: RateTrial | None,
        stops_lost: bool,
    ):
        self.context, self.setup, self.kept = context, setup, kept
        self.rate, self.steps, self.best = rate, steps, best
        self.logged: list[Logged] = []
        lowest = self._of_best.lowest() if self._of_best is not None and stops_lost else None
        self.watch = TrialWatch(context, setup, schedule, steps, lowest, keep=self._keep)

    def begin(self) -> None:
        """With the losses of the model as it came, which the first trials measure for all."""
        path = self.context.run.path(f"{SEARCH}/base.npz")
        if not path.exists():
            own = self.kept.folder / path.name  # another process may be at the same
            self.watch.measured().save(own)
            own.replace(path)
        self.watch.begin(Evaluation(0, 0.0, DocumentLosses.load(path)))

    def put_back(self) -> None:
        """Load the best weights so far."""
        best = min(self.watch.evaluations, key=lambda each: each.validation.nats_per_token)
        path = self.kept.weights(best.step)
        if best.step == 0:  # the model as it came, which was not kept
            fresh, tokenizer = load_prepared(self.context.target, self.context.recipe)
            save_model(fresh, tokenizer, path)
        load_weights(self.setup.model, path)

    def leads_at(self, step: int) -> bool:
        """Whether it is better than ``best`` at its end; then most of the files of that one go."""
        if self.watch.has_lost:
            return False
        if (found := self.watch.look_at(step)) is not None:
            self.kept.save_losses(found)
        if self._leads and self._of_best is not None:
            self._of_best.let_go()
        return self._leads

    @property
    def nll(self) -> float:
        """The lowest so far in nats per token: what the training would keep."""
        return self.watch.lowest.nats_per_token

    @property
    def _of_best(self) -> Beginning | None:
        best = self.best
        return None if best is None else Beginning.of(self.context.run, best.learning_rate)

    @property
    def _leads(self) -> bool:
        if self.best is None:
            return True
        return (self.nll, self.rate) < (self.best.loss, self.best.learning_rate)

    def _keep(self, found: Evaluation, training_loss: float | None, learning_rate: float) -> None:
        at = Logged(found.step, found.epoch, training_loss, learning_rate, found.weights)
        self.logged.append(at)
        self.kept.save_losses(found)
        goes_on = found.step < self.steps and not self.watch.has_lost
        if found.step and (goes_on or (found.step >= self.steps and self._leads)):
            save_model(self.setup.model, self.setup.tokenizer, self.kept.weights(found.step))
