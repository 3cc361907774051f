"""What a search over a recipe's ranges will do, and whether it can, before anything is written."""

import itertools
import math
from collections.abc import Callable, Iterator

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.core.search_space import Between, Point, Range, Value, in_words, values_of
from heldout.jobs.kit.prepare import regularizers_of
from heldout.search.optuna_sampler import OptunaSampler, refuse_absent
from heldout.search.recipe_point import is_whole, value_at, with_values
from heldout.search.sampler import CoordinateSampler, Sampler, Space

RATE = "train.learning_rate"
EPOCHS = "train.max_epochs"
NOT_SEARCHED = tuple(
    f"train.{key}" for key in ("seed", "threads", "side_by_side", "checkpoint_minutes")
)


def sampler_of(recipe: Recipe, usual_rate: Callable[[], float]) -> Sampler:
    """Who chooses the points of ``search.ranges``; starts at the recipe's own values."""
    search = recipe.search
    whole = frozenset(key for key in search.ranges if is_whole(recipe, key))
    space = Space(search.ranges, start_point(recipe, usual_rate), whole)
    if search.sampler == "coordinate":
        return CoordinateSampler(space, cost_of)
    return OptunaSampler(
        search.sampler, space, search.max_trials, search.at_once, recipe.train.seed
    )


def cost_of(point: Point) -> float:
    """The epochs of a point, where they are searched."""
    return float(point.get(EPOCHS, 0.0))


def start_point(recipe: Recipe, usual_rate: Callable[[], float]) -> Point:
    """The recipe's own values, which lie in the ranges.

    A learning rate that is not given starts at ``usual_rate``, or the nearest that is in its range.
    Raises UserError for values outside.
    """
    point: Point = {}
    for key, choices in recipe.search.ranges.items():
        own = value_at(recipe, key)
        if own is None and key == RATE:
            own = _nearest(choices, usual_rate())
        if own is None or not _holds(choices, own):
            words = list(choices) if isinstance(choices, tuple) else str(choices)
            raise UserError(
                f"The search starts at the recipe's own {key}, which must lie on "
                f"search.ranges.{key} = {words}, got {own}: set one of these."
            )
        point[key] = own if isinstance(own, bool | str) else float(own)
    return point


def check_ranges(
    recipe: Recipe, usual_rate: Callable[[], float], check: Callable[[Recipe], object]
) -> str:
    """What the search will do, in words; empty without ranges.

    Raises UserError for keys that are not searched, for values that the recipe, a regularizer or an
    augmentation does not take, and where ``check`` does for two values together.
    """
    search = recipe.search
    if not search.ranges:
        return ""
    _refuse_contradictions(recipe)
    for key, choices in search.ranges.items():
        for value in values_of(choices):
            at_value = with_values(recipe, {key: value})
            regularizers_of(at_value)
            for name, settings in at_value.augment.items():
                build("augmentation", name, settings)
    sampler_of(recipe, usual_rate)
    seen: list[Recipe] = []
    for point in _corners(recipe):
        try:
            at_point = with_values(recipe, point)
            if at_point not in seen:
                check(at_point)
                seen.append(at_point)
        except UserError as error:
            raise UserError(
                f"search.ranges: {in_words(point)} do not go together: {error}"
            ) from None
    trainings = min(_num_points(recipe), search.max_trials) + search.repeats
    most = max(map(float, values_of(search.ranges.get(EPOCHS, (recipe.train.max_epochs,)))))
    return (
        f"up to {trainings} trainings of up to {most:g} epochs before the run, over "
        f"{', '.join(search.ranges)}, by {search.sampler}; none with --set search.ranges={{}}"
    )


def ends_elsewhere(regularizer: Regularizer) -> bool:
    """Whether it stops a training early, takes it back, or changes the weights after it."""
    kind = type(regularizer)
    return kind.decide is not Regularizer.decide or kind.finish is not Regularizer.finish


def rolls_back(regularizer: Regularizer) -> bool:
    """Whether it may put earlier weights back, which a trial does not keep."""
    return type(regularizer).decide is not Regularizer.decide and regularizer.NEEDS_VALIDATION


def acts_afterwards(regularizer: Regularizer) -> bool:
    """Whether it changes the weights after training, which a trial does not see."""
    return type(regularizer).finish is not Regularizer.finish


def _refuse_contradictions(recipe: Recipe) -> None:
    """What no search can do whatever the values."""
    search = recipe.search
    for key in search.ranges:
        if key in NOT_SEARCHED:
            raise UserError(f"search.ranges: {key} is no setting to search; take the range out.")
    if search.max_trials < 2 <= _num_points(recipe):
        raise UserError(
            "search.max_trials must be 2 or more with search.ranges, got "
            f"{search.max_trials}: the first trial is the recipe's own settings."
        )
    named = zip(recipe.regularizers, regularizers_of(recipe), strict=True)
    if search.sampler == "coordinate":
        _refuse_for_coordinates(recipe)
        for name, regularizer in named:
            if ends_elsewhere(regularizer):
                raise UserError(
                    f"search.sampler=coordinate compares trainings at their end, and {name} keeps "
                    "another point of the run: leave it out with --set "
                    f"regularizers.{name}=false, use search.sampler=tpe, or leave the ranges out "
                    "with --set search.ranges={}."
                )
        return
    refuse_absent(search.sampler)
    for key in search.ranges:
        section, _, rest = key.partition(".")
        name = rest.partition(".")[0]
        if section == "regularizers":
            parameters = recipe.regularizers.get(name, {})
            kind = build("regularizer", name, parameters)
            if acts_afterwards(kind) or rolls_back(kind):
                raise UserError(
                    f"search.ranges: {key}: {name} works on weights that a trial does not keep; "
                    "take the range out."
                )
    for name, regularizer in named:
        if rolls_back(regularizer):
            raise UserError(
                f"search.ranges tries trainings that keep no weights, and {name} puts earlier ones "
                f"back: leave it out with --set regularizers.{name}=false."
            )


def _refuse_for_coordinates(recipe: Recipe) -> None:
    for key, choices in recipe.search.ranges.items():
        if isinstance(choices, Between) or isinstance(choices[0], bool | str):
            raise UserError(
                f"search.sampler=coordinate moves along lists of rising numbers, and "
                f"search.ranges.{key} is none: use search.sampler=tpe, or give such a list."
            )
    if recipe.search.repeats:
        raise UserError(
            "search.repeats cannot be used with search.sampler=coordinate, whose certificate is of "
            "one seed: use search.sampler=tpe, or set search.repeats=0."
        )


def _corners(recipe: Recipe) -> Iterator[Point]:
    """All lowest, all highest, and every two values together that are words or whether at all."""
    ranges = recipe.search.ranges
    for place in (0, -1):
        yield {key: values_of(choices)[place] for key, choices in ranges.items()}
    named = [(key, c) for key, c in ranges.items() if isinstance(values_of(c)[0], bool | str)]
    for key, choices in named:
        yield from ({key: value} for value in values_of(choices))
    for (key, choices), (other, others) in itertools.combinations(named, 2):
        for value, second in itertools.product(values_of(choices), values_of(others)):
            yield {key: value, other: second}


def _num_points(recipe: Recipe) -> float:
    """Without regard to techniques that take their parameters along."""
    ranges = recipe.search.ranges.values()
    return math.prod(
        math.inf if isinstance(choices, Between) else len(choices) for choices in ranges
    )


def _nearest(choices: Range, rate: float) -> Value:
    if isinstance(choices, Between):
        return min(max(rate, choices.low), choices.high)
    return min(choices, key=lambda value: abs(math.log(float(value) / rate)))


def _holds(choices: Range, value: Value) -> bool:
    if isinstance(choices, Between):
        return not isinstance(value, bool | str) and choices.low <= value <= choices.high
    return value in choices
