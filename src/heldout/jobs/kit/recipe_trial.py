"""One trial of a search over a recipe: a fresh model, trained at a point and measured on the way.

A trial is a task: it can be done in this process or in another, and leaves one small file, from
which a search that was killed takes it.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from heldout.core.errors import TrainingDiverged
from heldout.core.files import write_text
from heldout.core.interrupt import StopRequest
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.search_space import Point
from heldout.jobs.kit.beginning import SEARCH
from heldout.jobs.kit.check_ranges import cost_of
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.side_by_side import Task
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.jobs.kit.trial import try_training
from heldout.jobs.kit.trial_watch import TrialWatch
from heldout.search.recipe_point import with_values
from heldout.search.tried import Tried, by_group
from heldout.training.loop import Schedule, train


@dataclass(frozen=True)
class Trial:
    """What to train: ``name`` tells its file; ``best`` that of the best trial so far, if any.

    With ``at_end`` it is measured once, at its end. Else its losses are the lowest of its
    evaluations, as a run keeps them, and it stops where the recipe says or once it has lost.
    """

    name: str
    point: Point
    learning_rate: float  # where the point has none
    seed: int = 0
    at_end: bool = False
    best: str = ""
    words: str = ""  # what people call it

    def task(self, context: RunContext) -> Task:
        """For processes side by side."""
        return Task(self.words, try_point, {"known": context.told, "trial": vars(self)})

    def read(self, run: Run) -> Tried | None:
        """What it reached; None where it has not ended."""
        return _read(run, self.name)


def try_point(
    progress: Progress, request: StopRequest, *, known: dict[str, Any], trial: dict[str, Any]
) -> None:
    """Train and measure; what has ended already is not done again."""
    context = RunContext.of_run(known, progress, request)
    wanted = Trial(**trial)
    if wanted.read(context.run) is None:
        context.run.path(SEARCH).mkdir(parents=True, exist_ok=True)
        tried = _tried(context, wanted)
        write_text(_path(context.run, wanted.name), json.dumps(tried.to_json()))


def _tried(context: RunContext, trial: Trial) -> Tried:
    began = time.monotonic()
    at_point = with_values(context.recipe, trial.point)
    rate = at_point.train.learning_rate or trial.learning_rate
    at_point = at_point.replace(train={"seed": at_point.train.seed + trial.seed})
    at_work = replace(context, recipe=at_point)
    setup = TrainingSetup.of(at_work)
    schedule = Schedule.of(len(setup.windows), at_point)
    if trial.at_end:
        losses = try_training(
            at_work, setup, trial.words, learning_rate=rate, steps=schedule.max_steps
        )
        found = Tried(trial.point, losses and by_group(losses))
    else:
        best = _read(context.run, trial.best) if trial.best else None
        found = _watched(at_work, setup, trial, rate, schedule, best)
    seconds = time.monotonic() - began
    found = replace(found, seed=trial.seed, cost=cost_of(trial.point), seconds=seconds)
    reached = "diverged" if found.losses is None else f"{found.loss:.4f} nats/token"
    words = trial.words.partition(": ")[2]
    if found.stopped_early:
        context.progress.note(f"{words}: {reached} held-out, stopped early")
    else:
        context.progress.note(f"{words}: {reached} held-out")
    return found


def _watched(
    context: RunContext,
    setup: TrainingSetup,
    trial: Trial,
    rate: float,
    schedule: Schedule,
    best: Tried | None,
) -> Tried:
    recipe = context.recipe
    watch = TrialWatch(
        context,
        setup,
        schedule,
        schedule.max_steps,
        best.losses if best is not None and can_be_foretold(recipe) else None,
        grace=recipe.search.grace_epochs * schedule.steps_per_epoch,
    )
    training = setup.training(
        context,
        learning_rate=rate,
        schedule=schedule,
        folder=context.run.path(f"{SEARCH}/{trial.name}"),
        is_tracked=False,
    )
    with context.progress.stage(trial.words, schedule.max_steps):
        try:
            watch.begin()
            outcome = train(
                training,
                on_evaluate=watch.evaluate,
                checkpoints=False,
                should_stop=context.stop,
                progress=context.progress,
            )
        except TrainingDiverged:
            return Tried(trial.point, None, evaluations=watch.num_looks)
    context.check_interrupt(outcome.interrupted)
    lowest, num = by_group(watch.lowest), watch.num_looks
    return Tried(trial.point, lowest, evaluations=num, stopped_early=watch.has_lost)


def can_be_foretold(recipe: Recipe) -> bool:
    """Whether a loss half-way tells of the end: not while the rate has yet to fall."""
    return recipe.train.schedule == "constant"


def _path(run: Run, name: str) -> Any:
    return run.path(f"{SEARCH}/trial-{name}.json")


def _read(run: Run, name: str) -> Tried | None:
    path = _path(run, name)
    if not path.exists():
        return None
    return Tried.from_json(json.loads(path.read_text(encoding="utf-8")))
