"""A run within so many minutes: what is done of the recipe, and what is left out (decision 031).

What comes last goes first: the control, further seeds and ablation of a search, its trials down to
four, trials of the learning rate down to one, and then the training's length. The sealed test and
the report are always kept.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from heldout.core.errors import UserError
from heldout.core.job_time import Estimate, JobPart, in_words
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.run_files import PreflightCheck
from heldout.jobs.fitting.estimate import TRAINING, Work
from heldout.jobs.kit.dry_run import DryRun
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.kit.rate_trial import search_in_words
from heldout.training.planned_decay import decay_in_words

CHECK = "time limit"  # that tells what is done
KEPT_BACK = 0.03  # of the minutes, for what no estimate sees
# Of what the test leaves, the most that trials of the learning rate take, unless all fits.
SEARCH_SHARE, SHARE_OF_TWO = 1 / 3, 1 / 2
FEWEST_TRIALS = 4  # of a search of ranges
LEAST_STEPS = 20  # of a training, or an epoch where that is shorter
SLACK = 1.5  # of the epochs that a clock ends, should they be faster than they were timed
FALLING_SHARE = 0.9  # of the time for a training whose rate must fall to its end


@dataclass(frozen=True)
class Budget:
    """The minutes of a run, and what their plan needs to know later; kept in ``plan.json``.

    ``after``: seconds of the sealed test, with the control, and the report.
    """

    minutes: float
    left_out: tuple[str, ...]
    control_epochs: float  # that were asked for; 0: none
    plans_control: bool  # from the beginning; else there may be time at the end
    epoch: float  # seconds of an epoch of the training ...
    control_epoch: float  # ... and of the control
    after: float

    @classmethod
    def of_run(cls, run: Run) -> Self | None:
        """None in a run without minutes."""
        if not run.path("plan.json").exists():
            return None
        known = run.read_json("plan.json").get("budget")
        return known and cls(**{**known, "left_out": tuple(known["left_out"])})

    @property
    def usable(self) -> float:
        """Seconds."""
        return 60 * self.minutes * (1 - KEPT_BACK)

    def is_up(self, taken: float) -> bool:
        """Whether a training has to end, as the run has taken so many seconds."""
        return taken + self.after >= self.usable

    def control(self, taken: float, result: dict[str, Any]) -> tuple[float, str]:
        """Epochs of a control that there is time for after the training, 0 for none; in words.

        As many as were asked for, else as many as the training had, by its own speed.
        """
        trained = result["last_epoch"]
        epochs = self.control_epochs or trained
        if not trained:
            return 0.0, "The control was left out: nothing was trained."
        slower = max(1.0, result["seconds_training"] / trained / self.epoch)
        takes = slower * epochs * self.control_epoch
        left = self.usable - taken - slower * self.after
        if takes <= left:
            return epochs, f"There is time for a control of {epochs:.3g} epochs."
        needed, there = in_words(takes), in_words(max(0.0, left))
        return 0.0, f"The control was left out: it takes about {needed}, and {there} are left."

    @property
    def words(self) -> str:
        """What was planned, for people."""
        left_out = ", ".join(self.left_out)
        rest = f"Left out: {left_out}." if left_out else "All of the recipe fits."
        return " ".join([f"Planned within {self.minutes:g} min.", rest])

    @property
    def words_before(self) -> str:
        """The same before it is known whether there is time for a control."""
        if self.plans_control:
            return self.words
        return " ".join([self.words, "A control is trained at the end, if there is time."])


@dataclass(frozen=True)
class Plan:
    """The work as the minutes hold it, how long it takes, and what was left out."""

    work: Work
    estimate: Estimate
    budget: Budget


def planned(work: Work, spent: float) -> Plan:
    """``spent``: seconds before now.

    Raises UserError where not even a short training, the sealed test and the report fit.
    """
    recipe = work.recipe
    minutes = recipe.train.max_minutes
    after = work.of(recipe.replace(control={"fixed_epochs": 1.0})).after()
    _refuse_few(work, minutes, spent, after)
    left = 60 * minutes * (1 - KEPT_BACK) - spent - after
    cut = _Cut(work, left if _clock_ends(work) else FALLING_SHARE * left)
    cut.control()
    cut.searches()
    epochs = cut.length()
    asked_for = recipe.control.fixed_epochs
    left_out = tuple(cut.left_out)
    has_control = bool(cut.work.recipe.control.fixed_epochs) or work.rows.mode != "split"
    budget = Budget(
        minutes, left_out, asked_for, has_control, work.epoch(), work.control(1.0), after
    )
    parts = tuple(_within(part, cut.work, epochs) for part in cut.work.parts())
    return Plan(cut.work, replace(cut.work.estimate(), parts=parts), budget)


def as_planned(dry: DryRun, plan: Plan) -> DryRun:
    """A dry run of the recipe as it was asked for, told of what is done of it."""
    work, budget = plan.work, plan.budget
    recipe, schedule = work.recipe, work.schedule
    regularizers = regularizers_of(recipe)
    said = {
        "learning rate": search_in_words(schedule, recipe),
        "weight decay": decay_in_words(regularizers, recipe, schedule.max_steps),
    }
    checks = [replace(check, message=said.get(check.name) or check.message) for check in dry.checks]
    checks.insert(0, PreflightCheck(CHECK, "ok", budget.words_before))
    return replace(dry, checks=checks, max_steps=schedule.max_steps, estimate=plan.estimate)


def _within(part: JobPart, work: Work, epochs: float) -> JobPart:
    """The training is as long as there is time for it."""
    if part.name != TRAINING or epochs >= work.recipe.train.max_epochs:
        return part
    share = epochs / work.recipe.train.max_epochs
    units = max(1, round(share * part.units))
    return replace(part, seconds=share * part.seconds, units=units, at_most=True)


def _refuse_few(work: Work, minutes: float, spent: float, after: float) -> None:
    """UserError where nothing can be trained in them."""
    least = (spent + after + work.least(LEAST_STEPS)) / (1 - KEPT_BACK)
    if least > 60 * minutes:
        raise UserError(
            f"train.max_minutes={minutes:g} is too little here: reading the rows, {LEAST_STEPS} "
            f"steps, the sealed test and the report take about {in_words(least)}. Give at least "
            f"--minutes {math.ceil(least / 6) / 10:g}. Nothing was written."
        )


def _clock_ends(work: Work) -> bool:
    """Whether the training may end whenever the time is up: its rate does not fall, and no other
    training is as long."""
    is_alone = work.rows.mode == "split" and not work.num_others
    return is_alone and work.recipe.train.schedule == "constant"


class _Cut:
    """Leaves out of a recipe what ``seconds`` do not hold."""

    def __init__(self, work: Work, seconds: float):
        self.work = work
        self.seconds = seconds
        self.left_out: list[str] = []

    @property
    def all_fits(self) -> bool:
        return self.work.trainings() <= self.seconds

    def control(self) -> None:
        """One that was asked for is planned where all fits; else there may be time at the end."""
        if self.work.recipe.control.fixed_epochs and not self.all_fits:
            self.work = self.work.of(self.work.recipe.replace(control={"fixed_epochs": 0.0}))

    def searches(self) -> None:
        """The parts of the searches, the last ones first."""
        search = self.work.recipe.search
        if search.repeats and not self.all_fits:
            self._set(repeats=0)
            self.left_out.append("further seeds of the search")
        if search.ablate != "off" and not self.all_fits:
            self._set(ablate="off")
            self.left_out.append("the ablation")
        self._trials_of_ranges()
        self._trials_of_rates()

    def _trials_of_ranges(self) -> None:
        asked = self.work.recipe.search.max_trials
        num = asked
        while self.work.recipe.search.ranges and num > FEWEST_TRIALS and not self.all_fits:
            num -= 1
            self._set(max_trials=num)
        if num < asked:
            self.left_out.append(f"{asked - num} of {asked} trials of the search")

    def _trials_of_rates(self) -> None:
        asked = self.work.num_trials
        num = asked
        while num > 1 and not self.all_fits:
            share = SEARCH_SHARE if num > 2 else SHARE_OF_TWO
            if self.work.rate_search() <= share * self.seconds:
                break
            num -= 1
            self._try_rates(num)
        if num == asked:
            return
        if num == 1:
            self.left_out.append("the search for a learning rate")
        else:
            self.left_out.append(f"{asked - num} of {asked} trials of the learning rate")

    def _try_rates(self, num: int) -> None:
        rates = self.work.recipe.search.learning_rates
        if rates:
            self._set(learning_rates=rates[:num])
        else:
            self._set(max_trials=num)

    def length(self) -> float:
        """Epochs that there is time for. Where the rate falls, the recipe plans that many.

        Where it stays, the clock ends the training; the default number of epochs is raised where
        early stopping ends it, too.
        """
        work, recipe = self.work, self.work.recipe
        asked = recipe.train.max_epochs
        epochs = work.epochs_within(self.seconds)
        can_go_on = "early_stopping" in recipe.regularizers and asked == Recipe().train.max_epochs
        if epochs < asked:
            self.left_out.append(f"epochs beyond about {epochs:.2g} of {asked:g}")
        if not _clock_ends(work) and epochs < asked:
            self._plan_epochs(max(0.01, math.floor(100 * epochs) / 100))
        elif _clock_ends(work) and can_go_on and epochs > asked:
            self._plan_epochs(math.ceil(SLACK * epochs))
        return epochs

    def _plan_epochs(self, epochs: float) -> None:
        self.work = self.work.of(self.work.recipe.replace(train={"max_epochs": epochs}))

    def _set(self, **values: Any) -> None:
        self.work = self.work.of(self.work.recipe.replace(search=values))
