"""Whole trainings by coordinates: the values of a run's recipe, with the certificate in the run."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import find_learning_rate, usual_rate
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.kit.training_setup import TrainingSetup
from heldout.jobs.kit.trial import try_training
from heldout.search.coordinate import Point, Tried, search_coordinates
from heldout.search.recipe_point import value_at, with_values
from heldout.training.loop import Schedule

FILE = "tuning.json"
SCHEMA = "heldout.tuning/1"
RATE = "train.learning_rate"
EPOCHS = "train.max_epochs"
NOT_SEARCHED = tuple(
    f"train.{key}" for key in ("seed", "threads", "side_by_side", "checkpoint_minutes")
)


def tune(context: RunContext) -> None:
    """Put the best point of ``search.grids`` into the run's recipe; without grids, do nothing.

    Every point is a training of its own, to its end, and compared by the losses of the validation
    rows, paired by group. ``tuning.json`` holds the trials, also half-way through, and then the
    certificate; the grids leave ``recipe.toml``, which says what is trained.

    Cost: at most ``search.max_trials`` trainings. Raises UserError if all of them diverge.
    """
    run, recipe = context.run, context.recipe
    if not recipe.search.grids:
        return
    recorded = run.read_json(FILE) if run.path(FILE).exists() else {"trials": []}
    if recorded.get("chosen") is None:
        if RATE not in recipe.search.grids:
            recipe = recipe.replace(train={"learning_rate": find_learning_rate(context)})
        recorded = _search(replace(context, recipe=recipe), recorded)
    tuned = with_values(recipe, recorded["chosen"]).replace(search={"grids": {}})
    run.write_text("recipe.toml", tuned.to_toml())


def _search(context: RunContext, recorded: dict[str, Any]) -> dict[str, Any]:
    run, recipe, progress = context.run, context.recipe, context.progress
    grids = recipe.search.grids
    known = [Tried.from_json(entry) for entry in recorded["trials"]]
    trials = list(known)

    def evaluate(point: Point) -> DocumentLosses | None:
        at_point = with_values(recipe, point)
        assert at_point.train.learning_rate is not None
        at_work = replace(context, recipe=at_point)
        setup = TrainingSetup.of(at_work)
        losses = try_training(
            at_work,
            setup,
            f"search {len(trials) + 1}: {_words(point)}",
            learning_rate=at_point.train.learning_rate,
            steps=Schedule.of(len(setup.windows), at_point).max_steps,
        )
        reached = "diverged" if losses is None else f"{losses.nats_per_token:.4f} nats/token"
        progress.note(f"{_words(point)}: {reached} held-out")
        return losses

    def keep(tried: Tried) -> None:
        trials.append(tried)
        run.write_json(FILE, {"trials": [each.to_json() for each in trials], "chosen": None})

    found = search_coordinates(
        evaluate,
        grids,
        start=start_point(recipe, lambda: usual_rate(context.target, recipe)),
        max_trials=recipe.search.max_trials,
        cost=lambda point: point.get(EPOCHS, 0.0),
        known=known,
        keep=keep,
    )
    if found.chosen is None:
        raise UserError(
            f"{found.sentence} Give lower learning rates with --set search.grids.{RATE}=[...], or "
            "look at the data."
        )
    progress.note(found.sentence)
    result = {
        "schema": SCHEMA,
        **found.to_json(),
        "trials": [tried.to_json() for tried in found.trials],
    }
    run.write_json(FILE, result)
    return result


def start_point(recipe: Recipe, usual_rate: Callable[[], float]) -> Point:
    """The recipe's own values, which lie on the grids.

    A learning rate that is not given starts at the grid's value nearest to ``usual_rate``. Raises
    UserError for values off their grids.
    """
    point: Point = {}
    for key, values in recipe.search.grids.items():
        own: Any = value_at(recipe, key)
        if own is None and key == RATE:
            usual = usual_rate()
            own = min(values, key=lambda value: abs(math.log(value / usual)))
        if own is None or float(own) not in values:
            raise UserError(
                f"The search starts at the recipe's own {key}, which must lie on "
                f"search.grids.{key} = {list(values)}, got {own}: set one of these."
            )
        point[key] = float(own)
    return point


def check_grids(
    recipe: Recipe, usual_rate: Callable[[], float], check: Callable[[Recipe], object]
) -> str:
    """What the search will do, in words; empty without grids.

    Raises UserError for keys that are not searched, for values that the recipe, a regularizer or an
    augmentation does not take, and where ``check`` does for all lowest or all highest values.
    """
    grids = recipe.search.grids
    if not grids:
        return ""
    for key in grids:
        if key in NOT_SEARCHED:
            raise UserError(f"search.grids: {key} is no setting to search; take the grid out.")
    for name, regularizer in zip(recipe.regularizers, regularizers_of(recipe), strict=True):
        if ends_elsewhere(regularizer):
            raise UserError(
                f"search.grids compares trainings at their end, and {name} keeps another point of "
                f"the run: leave it out with --set regularizers.{name}=false, or the grids with "
                "--set search.grids={}."
            )
    for key, values in grids.items():
        for value in values:
            at_value = with_values(recipe, {key: value})
            regularizers_of(at_value)
            for name, settings in at_value.augment.items():
                build("augmentation", name, settings)
    start_point(recipe, usual_rate)
    for end in (min, max):
        check(with_values(recipe, {key: end(values) for key, values in grids.items()}))
    points = math.prod(len(values) for values in grids.values())
    trainings = min(points, recipe.search.max_trials)
    most = max(grids.get(EPOCHS, (recipe.train.max_epochs,)))
    return (
        f"up to {trainings} trainings of up to {most:g} epochs before the run, over "
        f"{', '.join(grids)}; none with --set search.grids={{}}"
    )


def ends_elsewhere(regularizer: Regularizer) -> bool:
    """Whether it stops a training early, takes it back, or changes the weights after it."""
    kind = type(regularizer)
    return kind.decide is not Regularizer.decide or kind.finish is not Regularizer.finish


def _words(point: Point) -> str:
    return ", ".join(f"{key.partition('.')[2]} {value:g}" for key, value in point.items())
