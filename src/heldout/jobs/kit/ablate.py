"""What each part of a recipe is worth: a training without it beside one with all of them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.finite import without_infinity
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.search_space import USED, Point, in_words
from heldout.jobs.kit.check_ranges import ends_elsewhere
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.kit.recipe_trial import Trial
from heldout.search.recipe_point import with_values
from heldout.search.tried import Tried

FILE = "ablation.json"
SCHEMA = "heldout.ablation/1"


@dataclass(frozen=True)
class _Part:
    """A regularizer or an augmentation of the recipe."""

    key: str  # regularizers.NAME or augment.NAME

    @property
    def left_out(self) -> Point:
        return {f"{self.key}{USED}": False}


def ablate(context: RunContext) -> None:
    """Train the run's recipe, and once more without each of its parts; drop what does not pay.

    A part pays where the recipe is surely worse without it, by the paired interval over validation
    groups. ``ablation.json`` tells; with ``search.ablate=drop`` parts that do not pay leave
    ``recipe.toml``, unless the recipe is surely worse without all of them together. All go by the
    same learning rate. Cost: a training, one for each part, and with drop one more.
    """
    run, recipe = context.run, context.recipe
    if recipe.search.ablate == "off":
        return
    if not run.path(FILE).exists():
        rate = find_learning_rate(context)
        run.write_json(FILE, _measured(context, rate))
    found = run.read_json(FILE)
    context.progress.note(found["sentence"])
    dropped: Point = {f"{key}{USED}": False for key in found["dropped"]}
    kept = with_values(recipe, dropped).replace(search={"ablate": "off"})
    run.write_text("recipe.toml", kept.to_toml())


def check_ablation(recipe: Recipe, check: Callable[[Recipe], object]) -> str:
    """What it will do, in words; empty where it is off.

    Raises UserError where there is no part to leave out, or the rest does not go without one.
    """
    if recipe.search.ablate == "off":
        return ""
    parts, _ = parts_of(recipe)
    if not parts:
        raise UserError(
            f"search.ablate={recipe.search.ablate}: the recipe has no regularizer or augmentation "
            "that changes training; set search.ablate=off."
        )
    for part in parts:
        check(with_values(recipe, part.left_out))
    more = 1 + (recipe.search.ablate == "drop")
    return (
        f"{len(parts) + more} trainings before the run: the recipe without each of its parts in "
        "turn, and beside it; none with --set search.ablate=off"
    )


def parts_of(recipe: Recipe) -> tuple[list[_Part], list[str]]:
    """What can be left out, and the keys of what cannot: what ends training or acts after it."""
    parts, others = [], []
    named = zip(recipe.regularizers, regularizers_of(recipe), strict=True)
    for name, regularizer in named:
        key = f"regularizers.{name}"
        if ends_elsewhere(regularizer):
            others.append(key)
        else:
            parts.append(_Part(key))
    return parts + [_Part(f"augment.{name}") for name in recipe.augment], others


def _measured(context: RunContext, rate: float) -> dict[str, Any]:
    recipe = context.recipe
    parts, others = parts_of(recipe)
    whole = Trial("whole", {}, rate, words="ablation: the whole recipe")
    without = [_without(part.key, part.left_out, rate) for part in parts]
    known = _of_search(context)
    trials = without if known is not None else [whole, *without]
    found = _trained(context, trials)
    full = known if known is not None else found["whole"].losses
    if full is None:
        raise TrainingDiverged("The recipe itself diverged, so that no part of it can be judged.")
    entries = [
        _entry(part.key, found[trial.name], full)
        for part, trial in zip(parts, without, strict=True)
    ]
    dropped = [entry["part"] for entry in entries if entry["verdict"] == "does not pay"]
    together = None
    if recipe.search.ablate == "show":
        dropped = []
    elif len(dropped) > 1:
        point: Point = {f"{key}{USED}": False for key in dropped}
        trial = _without("those", point, rate)
        found |= _trained(context, [trial])
        together = _entry("all of these", found[trial.name], full)
        if together["verdict"] != "does not pay":
            dropped = []
    return {
        "schema": SCHEMA,
        "loss": full.nats_per_token,
        "parts": entries,
        "together": together,
        "dropped": dropped,
        "not_tried": others,
        "sentence": _sentence(entries, dropped, together),
        "trials": [tried.to_json() for tried in found.values()],
    }


def _without(key: str, point: Point, rate: float) -> Trial:
    return Trial(f"without-{key}", point, rate, words=f"ablation: {in_words(point)}")


def _trained(context: RunContext, trials: list[Trial]) -> dict[str, Tried]:
    """What each reaches, by name; they go side by side."""
    with context.side_by_side() as beside:
        beside.add(*(trial.task(context) for trial in trials))
    found = {}
    for trial in trials:
        tried = trial.read(context.run)
        assert tried is not None, f"trial {trial.name} has left no file"
        found[trial.name] = replace(tried, point=trial.point)
    return found


def _of_search(context: RunContext) -> DocumentLosses | None:
    """The whole recipe's losses, where a search has measured them as a trial is measured here."""
    if not context.run.path("tuning.json").exists():
        return None
    tuning = context.run.read_json("tuning.json")
    if tuning.get("sampler", "coordinate") == "coordinate":
        return None
    trials = [Tried.from_json(entry) for entry in tuning["trials"]]
    return next(
        (each.losses for each in trials if each.seed == 0 and each.point == tuning["chosen"]), None
    )


def _entry(key: str, without: Tried, full: DocumentLosses) -> dict[str, Any]:
    """How much worse the recipe is without it; positive where the part helps."""
    if without.losses is None:
        empty = dict.fromkeys(("loss", "difference", "interval"))
        return {"part": key, **empty, "verdict": "diverged without"}
    more = without.losses.minus(full)
    return {
        "part": key,
        "loss": without.loss,
        "difference": more.value,
        "interval": without_infinity(asdict(more.interval)),
        "verdict": "pays" if more.interval.low > 0 else "does not pay",
    }


def _sentence(
    entries: list[dict[str, Any]], dropped: list[str], together: dict[str, Any] | None
) -> str:
    paying = sum(entry["verdict"] != "does not pay" for entry in entries)
    said = [f"Parts of the recipe that surely pay: {paying} of {len(entries)}."]
    if dropped:
        names = ", ".join(key.partition(".")[2] for key in dropped)
        said.append(f"Left out from here on: {names}.")
    elif together is not None:
        said.append("All that do not pay alone surely pay together, and stay.")
    return " ".join(said)


def trainings_at_once(recipe: Recipe) -> int:
    """How many trainings of an ablation do not depend on each other."""
    if recipe.search.ablate == "off":
        return 1
    return 1 + len(recipe.regularizers) + len(recipe.augment)
