"""The learning-rate search of a run: short trainings, each recorded as soon as it is done."""

from collections.abc import Callable
from typing import Any

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision
from heldout.core.run import Run
from heldout.jobs.arms import Target, Texts, losses_of, prepare, regularizers_of, windows_of
from heldout.search.learning_rate import Trial, search_learning_rate, start_learning_rate
from heldout.training.loop import Schedule, train
from heldout.training.steps import evaluation_weights


def find_learning_rate(
    run: Run,
    target: Target,
    recipe: Recipe,
    texts: Texts,
    *,
    stop: Callable[[], bool],
    progress: Progress,
    check_interrupt: Callable[[bool], None],
) -> float:
    """The rate for the run; ``search.json`` holds the trials, also half-way through."""
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate
    recorded: dict[str, Any] = {"trials": []}
    if run.path("search.json").exists():
        recorded = run.read_json("search.json")
        if recorded.get("chosen") is not None:
            return recorded["chosen"]
    known = [
        Trial(entry["learning_rate"], entry["validation_nll"], entry["steps"])
        for entry in recorded["trials"]
    ]
    trials = list(known)

    def try_rate(rate: float) -> Trial:
        trial = _try(run, target, recipe, texts, rate, stop, progress, check_interrupt)
        trials.append(trial)
        run.write_json("search.json", {"trials": [t.to_json() for t in trials], "chosen": None})
        reached = "diverged" if trial.diverged else f"{trial.validation_nll:.3f} nats/token"
        progress.note(f"learning rate {rate:g}: {reached} held-out after {trial.steps} steps")
        return trial

    chosen, ordered = search_learning_rate(
        try_rate,
        start=start_learning_rate(recipe.model.method, _num_parameters(target, recipe)),
        candidates=recipe.search.learning_rates,
        max_trials=recipe.search.max_trials,
        known=known,
    )
    if chosen is None:
        raise UserError(
            "Every learning rate that was tried diverged: give lower ones with "
            "--set search.learning_rates=[...], or look at the data."
        )
    run.write_json("search.json", {"trials": [t.to_json() for t in ordered], "chosen": chosen})
    return chosen


def _try(run, target, recipe, texts, rate, stop, progress, check_interrupt) -> Trial:
    loaded = target.load(recipe)
    model = prepare(loaded, recipe, is_scratch=bool(target.from_scratch))
    windows = windows_of(run, target, recipe, texts.train, loaded.tokenizer)
    full = Schedule.of(len(windows), recipe)
    steps = min(recipe.search.max_steps, max(1, round(full.steps_per_epoch * recipe.search.epochs)))
    reached: list[float] = []

    regularizers = regularizers_of(recipe)

    def evaluate(*_: float) -> tuple[Decision, dict[str, float]]:
        with evaluation_weights(model, regularizers):
            found = losses_of(model, loaded.tokenizer, texts.validation, recipe)
        reached.append(found.nats_per_token)
        return Continue(), {}

    with progress.stage(f"learning rate {rate:g}", steps):
        try:
            outcome = train(
                model,
                windows,
                recipe.replace(train={"report_to": ()}),
                regularizers,
                learning_rate=rate,
                schedule=Schedule(steps, steps, 1),
                folder=run.path("checkpoints/search"),
                on_evaluate=evaluate,
                checkpoints=False,
                should_stop=stop,
                progress=progress,
            )
        except TrainingDiverged:
            return Trial(rate, None, steps)
    check_interrupt(outcome.interrupted)
    return Trial(rate, reached[-1], steps)


def _num_parameters(target: Target, recipe: Recipe) -> int:
    return target.load(recipe).parameters
