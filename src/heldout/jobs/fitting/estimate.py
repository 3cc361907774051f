"""How long a run takes on this machine, part by part, from what is counted and a few timed steps.

Included: searches, the training, the control, the sealed test, samples and report. Not included:
reading the rows and the checks, which are over when this is told, and measuring augmentations.
"""

import math
from dataclasses import dataclass, replace

from heldout.core.job_time import Estimate, JobPart
from heldout.core.recipe import Recipe
from heldout.jobs.evidence.model_on_part import NEW_TOKENS, NUM_PROMPTS
from heldout.jobs.fitting.control import NAME as CONTROL
from heldout.jobs.fitting.timing import Speeds, measured_speeds, num_characters
from heldout.jobs.kit import ablate
from heldout.jobs.kit.check_ranges import RATE
from heldout.jobs.kit.dry_run import Ready
from heldout.jobs.kit.parts import Parts, sample_rows
from heldout.jobs.kit.peak_memory import peak_gb
from heldout.jobs.kit.prepare import regularizers_of
from heldout.jobs.kit.rate_trial import is_beginning, trial_steps
from heldout.search.learning_rate import AT_ONCE
from heldout.training.better_weights import averages
from heldout.training.loop import Schedule

SEARCH, TRAINING, TEST, REPORT = "search", "training", "sealed test", "report"
# By a rough count; less is not worth seconds of timing.
WORTH_TIMING_SECONDS = 20.0
_PAGE_SECONDS = 4.0  # of probes, verdict, page and model card
_CHARACTERS_READ = 4 * NUM_PROMPTS * 400  # of continuations and references, by the base model
_FEW_PROMPTS = 0.5  # of the time of a token behind many prompts, behind few
# Where little is worth timing: a character of loss, and all that the test takes.
_ROUGH = Speeds(0.1, 0.1, 0.0, 0.0, 1e-5, 2e-5, 0.1, 0.01)


def work_of(ready: Ready, parts: Parts, recipe: Recipe) -> "Work":
    """Before a run's first step; trains ``ready``'s model a little, which is of no use after that.

    Where the work is too little to time any of it, and there are no minutes to keep, it is counted.
    """
    step = ready.needs.seconds / ready.schedule.max_steps
    counted = Work(ready, parts, recipe, replace(_ROUGH, step=step, plain_step=step), False)
    little = counted.estimate().seconds < WORTH_TIMING_SECONDS
    if little and not recipe.train.max_minutes:
        return counted
    return replace(counted, speeds=measured_speeds(ready, parts, recipe), is_timed=True)


@dataclass(frozen=True)
class Work:
    """What a run by a recipe does, and what that takes at these speeds."""

    ready: Ready
    rows: Parts
    recipe: Recipe
    speeds: Speeds
    is_timed: bool

    def estimate(self) -> Estimate:
        """All of it. Memory is the most that was held, or where nothing was timed is counted."""
        one = peak_gb() if self.is_timed else self.ready.needs.bytes / 1e9
        if self.recipe.model.load_in:
            one = max(one, peak_gb())  # the base may have been read in float32 for its loss
        return Estimate(self.parts(), self.ready.places.most * one, self.is_timed)

    def parts(self) -> tuple[JobPart, ...]:
        """Those that the run has, in their order."""
        recipe, most = self.recipe, self.schedule.max_steps
        is_split = self.rows.mode == "split"
        found = []
        if units := self.search_units():
            found.append(JobPart(SEARCH, self.search(), units, at_most=True))
        ends_early = "early_stopping" in recipe.regularizers
        units = most if is_split else (recipe.eval.folds + 1) * most
        found.append(JobPart(TRAINING, self.training(), units, at_most=ends_early))
        if recipe.control.fixed_epochs:
            beside = CONTROL if self.ready.places.most > 1 else ""
            steps = self._steps(recipe.control.fixed_epochs)
            found.append(JobPart(CONTROL, self.control(recipe.control.fixed_epochs), steps, beside))
        if self.rows.rows["test"]:
            found.append(JobPart(TEST, self.test(), self.num_models))
        found.append(JobPart(REPORT, self.report(), self.num_models))
        return tuple(found)

    def of(self, recipe: Recipe) -> "Work":
        """By another recipe, on the same rows."""
        return replace(self, recipe=recipe)

    def after(self) -> float:
        """What follows the trainings."""
        return (self.test() if self.rows.rows["test"] else 0.0) + self.report()

    def trainings(self) -> float:
        """Searches, training and control."""
        return self.estimate().seconds - self.after()

    def epochs_within(self, seconds: float) -> float:
        """Of the training, whose searches and control take what they take."""

        def of_epochs(epochs: float) -> float:
            return self.of(self.recipe.replace(train={"max_epochs": epochs})).trainings()

        few, many = of_epochs(100.0), of_epochs(200.0)
        return 100 + 100 * (seconds - few) / (many - few)

    def least(self, steps: int) -> float:
        """A training of so many steps, or of an epoch, measured before and after it."""
        num = min(steps, self.schedule.steps_per_epoch)
        return self._of_steps(num, self.speeds.step) + 2 * self._evaluation()

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(len(self.ready.windows), self.recipe)

    @property
    def num_models(self) -> int:
        """That the sealed test reads: the base, the best, the last and the control."""
        return 4 if self.recipe.control.fixed_epochs else 3

    @property
    def is_rate_searched(self) -> bool:
        return self.recipe.train.learning_rate is None and RATE not in self.recipe.search.ranges

    @property
    def num_trials(self) -> int:
        """Of learning rates, at most."""
        search = self.recipe.search
        return (len(search.learning_rates) or search.max_trials) if self.is_rate_searched else 0

    @property
    def num_others(self) -> int:
        """Whole trainings of the other searches, at most."""
        search, found = self.recipe.search, 0
        if search.ranges:
            found += search.max_trials + search.repeats
        if search.ablate != "off":
            found += len(ablate.parts_of(self.recipe)[0]) + 1 + (search.ablate == "drop")
        return found

    def search_units(self) -> int:
        """Steps of all trials."""
        steps = self.num_trials * trial_steps(self.schedule, self.recipe)
        return steps + self.num_others * self.schedule.max_steps

    def search(self) -> float:
        """Without the trial that is the beginning of the training."""
        others = math.ceil(self.num_others / self.ready.places.most)
        return self.rate_search() + others * self._whole()

    def rate_search(self) -> float:
        """Of it the learning rate's."""
        rounds = math.ceil(self.num_trials / min(AT_ONCE, self.ready.places.most))
        if rounds and is_beginning(self.schedule, self.recipe):
            rounds -= 1
        return rounds * self.trial()

    def trial(self) -> float:
        """Of a learning rate."""
        steps = trial_steps(self.schedule, self.recipe)
        num = 1 + self._evaluations(steps)
        return self._of_steps(steps, self.speeds.step) + num * self._validation()

    def training(self) -> float:
        """To its last planned step; of folds, all of them and the training on all rows."""
        if self.rows.mode == "split":
            return self._whole()
        folds = self.recipe.eval.folds
        rounds = 1 + math.ceil((folds - 1) / self.ready.places.most)
        last = self._of_steps(self.schedule.max_steps, self.speeds.step)
        return rounds * self._whole(1 - 1 / folds) + last

    def epoch(self) -> float:
        """Of the training, with its evaluations."""
        schedule = self.schedule
        evaluations = schedule.evaluations_per_epoch * self._evaluation()
        return schedule.steps_per_epoch * self.speeds.step + evaluations

    def control(self, epochs: float) -> float:
        """Of ``epochs`` without regularization."""
        steps = self._steps(epochs)
        num = 1 + self._evaluations(steps)
        of_steps = self._of_steps(steps, self.speeds.plain_step)
        return of_steps + num * self._evaluation(averaged=False)

    def test(self) -> float:
        """Of all models, and what two of them write."""
        recipe, speeds = self.recipe, self.speeds
        most, seed = recipe.eval.max_recital_rows, recipe.data.seed
        sampled = sample_rows(self.rows.test, most, seed)
        read = num_characters(sample_rows(self.rows.train, most, seed)) + num_characters(sampled)
        rest = num_characters(self.rows.test) - num_characters(sampled)
        reading = self.num_models * (speeds.load + read * speeds.reading + rest * speeds.loss)
        written = 2 * (speeds.prompts + (NEW_TOKENS - 1) * speeds.token)
        scored = speeds.load + _CHARACTERS_READ * speeds.loss
        metric = 0.0
        if recipe.eval.metric:
            rounds = math.ceil(recipe.eval.metric_rows / NUM_PROMPTS)
            metric = 2 * rounds * recipe.eval.max_new_tokens * speeds.token
        return reading + written + scored + metric

    def report(self) -> float:
        """Samples, probes and page."""
        samples = _FEW_PROMPTS * self.recipe.eval.max_new_tokens * self.speeds.token
        return self.num_models * (self.speeds.load + samples) + _PAGE_SECONDS

    def _whole(self, share: float = 1.0) -> float:
        """A training with its evaluations, on a share of the rows."""
        num = 1 + self.schedule.num_evaluations
        steps = round(share * self.schedule.max_steps)
        return self._of_steps(steps, self.speeds.step) + num * self._evaluation()

    def _of_steps(self, steps: int, seconds: float) -> float:
        return self.speeds.load + self.speeds.start + steps * seconds

    def _steps(self, epochs: float) -> int:
        return Schedule.of(len(self.ready.windows), self.recipe, max_epochs=epochs).max_steps

    def _evaluations(self, steps: int) -> int:
        """Up to a step, without the one before training."""
        schedule = self.schedule
        return round(steps * schedule.evaluations_per_epoch / schedule.steps_per_epoch)

    def _validation(self, averaged: bool = True) -> float:
        """The loss of held-out rows, by both sets of weights where they are averaged."""
        two = averaged and averages(regularizers_of(self.recipe))
        rows = self.rows.validation or self.rows.train[:: self.recipe.eval.folds]
        return (1 + two) * num_characters(rows) * self.speeds.loss

    def _evaluation(self, averaged: bool = True) -> float:
        """With the training rows that are followed."""
        beside = num_characters(self.rows.texts.beside)
        return self._validation(averaged) + beside * self.speeds.loss
