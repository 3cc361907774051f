"""The learning-rate search of a run: short trainings, each recorded as soon as it is done."""

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.run_files import RateSearch, RateTrial
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.trial import try_training
from heldout.search.learning_rate import search_learning_rate, start_learning_rate
from heldout.training.loop import Schedule


def find_learning_rate(context: RunContext) -> float:
    """The rate for the run; ``search.json`` holds the trials, also half-way through."""
    run, recipe = context.run, context.recipe
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate
    known: tuple[RateTrial, ...] = ()
    if run.path("search.json").exists():
        recorded = RateSearch.from_json(run.read_json("search.json"))
        if recorded.chosen is not None:
            return recorded.chosen
        known = recorded.trials
    trials = list(known)

    def num_steps(full: Schedule) -> int:
        epochs = recipe.search.epochs
        return min(recipe.search.max_steps, max(1, round(full.steps_per_epoch * epochs)))

    def try_rate(rate: float) -> RateTrial:
        losses, steps = try_training(
            context, f"learning rate {rate:g}", learning_rate=rate, steps_of=num_steps
        )
        trial = RateTrial(rate, None if losses is None else losses.nats_per_token, steps)
        trials.append(trial)
        run.write_json("search.json", RateSearch(tuple(trials), None).to_json())
        reached = "diverged" if trial.diverged else f"{trial.validation_nll:.3f} nats/token"
        context.progress.note(
            f"learning rate {rate:g}: {reached} held-out after {trial.steps} steps"
        )
        return trial

    chosen, ordered = search_learning_rate(
        try_rate,
        start=usual_rate(context.target, recipe),
        candidates=recipe.search.learning_rates,
        max_trials=recipe.search.max_trials,
        known=known,
    )
    if chosen is None:
        raise UserError(
            "Every learning rate that was tried diverged: give lower ones with "
            "--set search.learning_rates=[...], or look at the data."
        )
    run.write_json("search.json", RateSearch(tuple(ordered), chosen).to_json())
    return chosen


def usual_rate(target: Target, recipe: Recipe) -> float:
    """Where the search of a rate begins; counts the parameters before any layers are added."""
    is_scratch = bool(target.from_scratch)
    parameters = target.load(recipe).parameters
    return start_learning_rate(recipe.model.method, parameters, from_scratch=is_scratch)
