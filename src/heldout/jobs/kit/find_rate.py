"""The learning-rate search of a run: short trainings, each recorded as soon as it is done."""

import math
from collections.abc import Sequence

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.run_files import RateSearch, RateTrial
from heldout.jobs.kit.beginning import Beginning
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.rate_trial import try_rate
from heldout.jobs.kit.target import Target
from heldout.search.learning_rate import search_learning_rate, start_learning_rate

FILE = "search.json"


def find_learning_rate(context: RunContext) -> float:
    """The rate for the run; ``search.json`` holds the trials, also half-way through."""
    run, recipe = context.run, context.recipe
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate
    recorded = read_search(run)
    if recorded.chosen is not None:
        return recorded.chosen
    trials = list(recorded.trials)

    def try_one(rate: float) -> RateTrial:
        trial = try_rate(context, rate, best_of(trials))
        trials.append(trial)
        write_search(run, RateSearch(tuple(trials), None))
        if best_of(trials) is not trial:
            Beginning.of(run, rate).remove()
        context.progress.note(_reached(trial))
        return trial

    chosen, ordered = search_learning_rate(
        try_one,
        start=usual_rate(context.target, recipe),
        candidates=recipe.search.learning_rates,
        max_trials=recipe.search.max_trials,
        known=recorded.trials,
    )
    if chosen is None:
        raise UserError(
            "Every learning rate that was tried diverged: give lower ones with "
            "--set search.learning_rates=[...], or look at the data."
        )
    write_search(run, RateSearch(tuple(ordered), chosen))
    return chosen


def best_of(trials: Sequence[RateTrial]) -> RateTrial | None:
    """The one of the lowest loss at its end; None where none came to it."""
    ended = [trial for trial in trials if math.isfinite(trial.loss)]
    return min(ended, key=lambda trial: (trial.loss, trial.learning_rate), default=None)


def read_search(run: Run) -> RateSearch:
    """``search.json``; one without trials where there is none."""
    if not run.path(FILE).exists():
        return RateSearch((), None)
    return RateSearch.from_json(run.read_json(FILE))


def write_search(run: Run, search: RateSearch) -> None:
    run.write_json(FILE, search.to_json())


def _reached(trial: RateTrial) -> str:
    rate, steps = f"{trial.learning_rate:g}", trial.steps
    if trial.validation_nll is None:
        return f"learning rate {rate}: diverged"
    nll = f"{trial.validation_nll:.3f}"
    if trial.stopped_early:
        return f"learning rate {rate}: {nll} nats/token held-out after {steps} steps, stopped early"
    return f"learning rate {rate}: {nll} nats/token held-out after {steps} steps"


def usual_rate(target: Target, recipe: Recipe) -> float:
    """Where the search of a rate begins; counts the parameters before any layers are added."""
    is_scratch = bool(target.from_scratch)
    parameters = target.load(recipe).parameters
    return start_learning_rate(recipe.model.method, parameters, from_scratch=is_scratch)
