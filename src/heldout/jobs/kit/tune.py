"""The search over a recipe's ranges: whole trainings, chosen by a sampler, recorded in the run."""

from dataclasses import asdict, replace
from functools import partial
from typing import Any

from heldout.core.errors import UserError
from heldout.core.finite import without_infinity
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.search_space import Between, Point, in_words, point_key
from heldout.jobs.kit.check_ranges import RATE, cost_of, sampler_of
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import find_learning_rate, usual_rate
from heldout.jobs.kit.recipe_trial import Trial
from heldout.search.coordinate import search_coordinates
from heldout.search.recipe_point import with_values
from heldout.search.sampler import CoordinateSampler, Sampler
from heldout.search.tried import Tried, settings_of, undecided

FILE = "tuning.json"
SCHEMA = "heldout.tuning/2"


def tune(context: RunContext, *, ends: bool = False) -> None:
    """Put the best point of ``search.ranges`` into the run's recipe; without ranges, do nothing.

    Every point is a training of its own, and compared by the losses of the validation rows, paired
    by group. ``tuning.json`` holds the trials, also half-way through, and then what was chosen and
    why; the ranges leave ``recipe.toml``, which says what is trained. With ``ends`` no further
    training is begun: the best so far is taken.

    Cost: at most ``search.max_trials`` trainings and ``search.repeats`` more. Raises UserError if
    all of them diverge, and with ``ends`` where none has ended.
    """
    run, recipe = context.run, context.recipe
    if not recipe.search.ranges:
        return
    recorded = run.read_json(FILE) if run.path(FILE).exists() else {"trials": []}
    if recorded.get("chosen") is None:
        if RATE not in recipe.search.ranges:
            recipe = recipe.replace(train={"learning_rate": find_learning_rate(context)})
        study = _Study.of(replace(context, recipe=recipe), recorded["trials"])
        if ends:
            study.take_ended()
        else:
            study.go_on()
        recorded = study.conclude()
    tuned = with_values(recipe, recorded["chosen"]).replace(search={"ranges": {}})
    run.write_text("recipe.toml", tuned.to_toml())


class _Study:
    """The trials of a run so far and who chooses the next."""

    def __init__(self, context: RunContext, sampler: Sampler, trials: list[Tried], rate: float):
        self.context = context
        self.sampler = sampler
        self.trials = trials
        self.rate = rate  # where points have none

    @classmethod
    def of(cls, context: RunContext, recorded: list[dict[str, Any]]) -> "_Study":
        usual = partial(usual_rate, context.target, context.recipe)
        sampler = sampler_of(context.recipe, usual)
        rate = context.recipe.train.learning_rate
        trials = [Tried.from_json(entry) for entry in recorded]
        return cls(context, sampler, trials, rate if rate is not None else usual())

    def go_on(self) -> None:
        """Train what the sampler proposes, then undecided points with further seeds."""
        search = self.context.recipe.search
        while True:
            left = search.max_trials - sum(tried.seed == 0 for tried in self.trials)
            points = self.sampler.propose(self.trials)[: max(0, left)]
            if not points:
                break
            self._train([(point, 0) for point in points])
        while sum(tried.seed > 0 for tried in self.trials) < search.repeats:
            setting = undecided(self.trials)
            if setting is None:
                break
            self._train([(setting.point, setting.num_seeds)])

    def take_ended(self) -> None:
        """Trials that ended in a round that did not; the search is told as if it had none left."""
        sampled = self.sampler.propose(self.trials)
        for point in sampled:
            tried = self._trial(len(self.trials), point, 0, "").read(self.context.run)
            if tried is None or point_key(tried.point) != point_key(point):
                break
            self.trials.append(tried)
        if not any(tried.has_ended for tried in self.trials):
            raise UserError(
                "No trial of the search has ended yet, so there is no best so far: go on with "
                "--resume alone, or start anew with --set search.ranges={}."
            )

    def conclude(self) -> dict[str, Any]:
        """Choose, and write ``tuning.json``."""
        recipe, run = self.context.recipe, self.context.run
        certified = isinstance(self.sampler, CoordinateSampler)
        found = self._certificate() if certified else _lowest(self.trials)
        if found["chosen"] is None:
            raise UserError(
                f"{found['sentence']} Give lower learning rates with --set "
                f"search.ranges.{RATE}=[...], or look at the data."
            )
        self.context.progress.note(found["sentence"])
        result = {
            "schema": SCHEMA,
            "sampler": recipe.search.sampler,
            "ranges": {
                key: asdict(choices) if isinstance(choices, Between) else list(choices)
                for key, choices in recipe.search.ranges.items()
            },
            **found,
            "trials": [tried.to_json() for tried in self.trials],
        }
        run.write_json(FILE, result)
        return result

    def _train(self, chosen: list[tuple[Point, int]]) -> None:
        """A round: its trials know of the best of those before it alone, in whatever order."""
        context, run = self.context, self.context.run
        ended = [number for number, tried in enumerate(self.trials) if tried.has_ended]
        best = min(ended, key=lambda number: self.trials[number].loss, default=None)
        trials = [
            self._trial(len(self.trials) + place, point, seed, "" if best is None else _name(best))
            for place, (point, seed) in enumerate(chosen)
        ]
        with context.side_by_side() as beside:
            beside.add(*(trial.task(context) for trial in trials))
        for trial in trials:
            tried = trial.read(run)
            assert tried is not None, f"trial {trial.name} has left no file"
            self.trials.append(tried)
        run.write_json(FILE, {"trials": [each.to_json() for each in self.trials], "chosen": None})

    def _trial(self, number: int, point: Point, seed: int, best: str) -> Trial:
        at_end = isinstance(self.sampler, CoordinateSampler)
        best = "" if at_end or seed else best
        words = f"search {number + 1}: {in_words(point)}"
        words += f", seed {seed + 1}" if seed else ""
        return Trial(_name(number), point, self.rate, seed, at_end, best, words)

    def _certificate(self) -> dict[str, Any]:
        assert isinstance(self.sampler, CoordinateSampler)
        found = search_coordinates(
            _untried,
            self.sampler.grids,
            start=self.sampler.space.start,
            max_trials=len(self.trials),
            cost=cost_of,
            known=self.trials,
        ).to_json()
        kept = ("chosen", "loss", "is_certified", "sentence", "edges", "neighbors")
        return {key: found[key] for key in kept} | {"compared": []}


def _untried(point: Point) -> DocumentLosses | None:
    raise AssertionError(f"{point} was not tried")


def _lowest(trials: list[Tried]) -> dict[str, Any]:
    """The point of the lowest mean loss, and how the others compare."""
    found: dict[str, Any] = {"is_certified": False, "edges": [], "neighbors": [], "compared": []}
    settings = settings_of(trials)
    if not settings:
        words = f"Every one of {len(trials)} points diverged."
        return {**found, "chosen": None, "loss": None, "sentence": words}
    chosen, *others = settings
    for other in others:
        difference = other.losses.minus(chosen.losses)
        found["compared"].append(
            {
                "point": other.point,
                "num_seeds": other.num_seeds,
                "loss": other.loss,
                "difference": difference.value,
                "interval": without_infinity(asdict(difference.interval)),
            }
        )
    said = [f"Of {len(trials)} trainings the lowest is {in_words(chosen.point)}."]
    if stopped := sum(tried.stopped_early for tried in trials):
        said.append(f"Stopped early, as they had surely lost: {stopped}.")
    own = next((each for each in settings if each.point == trials[0].point), None)
    if own is chosen:
        said.append("These are the recipe's own settings.")
    elif own is not None:
        gain = chosen.losses.minus(own.losses)
        said.append(
            f"Against the recipe's own settings: {gain.value:+.3f} {gain.interval.brackets()} "
            "nats/token on the rows that chose it."
        )
    return {**found, "chosen": chosen.point, "loss": chosen.loss, "sentence": " ".join(said)}


def _name(number: int) -> str:
    return f"{number + 1:03d}"


def trainings_at_once(recipe: Recipe) -> int:
    """How many trainings of the search do not depend on each other."""
    if not recipe.search.ranges:
        return 1
    return 2 if recipe.search.sampler == "coordinate" else recipe.search.at_once
