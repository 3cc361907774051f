"""The learning-rate search of a run: short trainings, each recorded as soon as it is done."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.run_files import RateSearch, RateTrial
from heldout.jobs.kit.beginning import Beginning
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import searched_texts
from heldout.jobs.kit.rate_trial import rate_task, try_rate
from heldout.jobs.kit.side_by_side import SideBySide
from heldout.jobs.kit.target import Target
from heldout.search.learning_rate import (
    AT_ONCE,
    best_of,
    rate_name,
    search_learning_rate,
    start_learning_rate,
)

FILE = "search.json"


def find_learning_rate(context: RunContext, beside: SideBySide | None = None) -> float:
    """The rate for the run; ``search.json`` holds the trials of all rounds so far.

    Those of a round go side by side where the context's places allow: ``beside`` does them, or a
    process of the search's own.
    """
    run, recipe = context.run, context.recipe
    if recipe.train.learning_rate is not None:
        return recipe.train.learning_rate
    recorded = read_search(run)
    if recorded.chosen is not None:
        return recorded.chosen
    context = replace(context, texts=searched_texts(context.texts, recipe))
    with ExitStack() as stack:
        if beside is None:
            beside = stack.enter_context(context.side_by_side())
            stack.enter_context(beside.kept())
        rounds = _Rounds(context, beside, list(recorded.trials))
        chosen, ordered = search_learning_rate(
            rounds.try_round,
            start=usual_rate(context.target, recipe),
            candidates=recipe.search.learning_rates,
            max_trials=recipe.search.max_trials,
        )
    if chosen is None:
        raise UserError(
            "Every learning rate that was tried diverged: give lower ones with "
            "--set search.learning_rates=[...], or look at the data."
        )
    write_search(run, RateSearch(tuple(ordered), chosen))
    return chosen


@dataclass
class _Rounds:
    """Does the rounds of a search, as far as they have not been done."""

    context: RunContext
    beside: SideBySide
    trials: list[RateTrial]  # that have ended

    def try_round(self, rates: Sequence[float], best: RateTrial | None) -> list[RateTrial]:
        """The trials of these rates; of all so far the best one alone keeps its ``Beginning``."""
        try:
            self._train([rate for rate in rates if self._ended(rate) is None], best)
        finally:
            self._record(rates)
        leader = best_of(self.trials)
        for trial in self.trials:
            if trial is not leader:
                Beginning.of(self.context.run, trial.learning_rate).remove()
        known = {rate_name(trial.learning_rate): trial for trial in self.trials}
        return [known[rate_name(rate)] for rate in rates]

    def _train(self, rates: Sequence[float], best: RateTrial | None) -> None:
        """The first one here, the others in other processes where there are any."""
        context, here = self.context, rates
        if self.beside.has_others:
            here = rates[:1]
            self.beside.add(*(rate_task(context, rate, best) for rate in rates[1:]))
        for rate in here:
            try_rate(context, rate, best)
            self._record(rates)
        self.beside.finish()

    def _ended(self, rate: float) -> RateTrial | None:
        names = {rate_name(trial.learning_rate): trial for trial in self.trials}
        known = names.get(rate_name(rate))
        return known or Beginning.of(self.context.run, rate).trial(self.context.recipe)

    def _record(self, rates: Sequence[float]) -> None:
        """Those of the round that have ended, in ``search.json``."""
        before = [rate_name(trial.learning_rate) for trial in self.trials]
        fresh = [self._ended(rate) for rate in rates if rate_name(rate) not in before]
        self.trials += [trial for trial in fresh if trial is not None]
        if self.trials:
            write_search(self.context.run, RateSearch(tuple(self.trials), None))


def rates_at_once(recipe: Recipe) -> int:
    """How many trials of the search do not depend on each other."""
    return min(AT_ONCE, len(recipe.search.learning_rates) or recipe.search.max_trials)


def read_search(run: Run) -> RateSearch:
    """``search.json``; one without trials where there is none."""
    if not run.path(FILE).exists():
        return RateSearch((), None)
    return RateSearch.from_json(run.read_json(FILE))


def write_search(run: Run, search: RateSearch) -> None:
    run.write_json(FILE, search.to_json())


def usual_rate(target: Target, recipe: Recipe) -> float:
    """Where the search of a rate begins; counts the parameters before any layers are added."""
    is_scratch = bool(target.from_scratch)
    parameters = target.load(recipe).parameters
    return start_learning_rate(recipe.model.method, parameters, from_scratch=is_scratch)
