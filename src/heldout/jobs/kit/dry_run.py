"""What a run would do, and whether it can: everything up to the first step."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.job_time import Estimate
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Regularizer
from heldout.core.row import Part
from heldout.core.run_files import PreflightCheck
from heldout.core.stats import LEAST_HELD_OUT
from heldout.jobs.kit import ablate, tune
from heldout.jobs.kit.ablate import check_ablation
from heldout.jobs.kit.augmentations import augmentations_of, augmented_windows
from heldout.jobs.kit.check_ranges import RATE, check_ranges
from heldout.jobs.kit.fidelity import check_variants
from heldout.jobs.kit.find_rate import rates_at_once, usual_rate
from heldout.jobs.kit.metrics import load_metric
from heldout.jobs.kit.parts import Parts
from heldout.jobs.kit.places import ALONE, NOTHING, Needs, Places
from heldout.jobs.kit.prepare import prepare, regularizers_of
from heldout.jobs.kit.quantized_base import check_quantized_base, whole_base_nats
from heldout.jobs.kit.rate_trial import search_in_words, trial_steps
from heldout.jobs.kit.target import Target
from heldout.lm.characters import token_size
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.embeddings import Encoder
from heldout.lm.nll import context_length
from heldout.lm.quantized import num_parameters
from heldout.regularizers.distillation import Distillation
from heldout.training.arguments import optimizer_arguments
from heldout.training.compatible import check_together
from heldout.training.cost import total_cost
from heldout.training.loop import Schedule
from heldout.training.planned_decay import decay_in_words
from heldout.training.preflight import (
    check_evaluation,
    check_renderings,
    check_resources,
    check_windows,
)
from heldout.training.trackers import check_trackers
from heldout.training.windows import WindowDataset


@dataclass(frozen=True)
class DryRun:
    """What a run would do, found out without training."""

    rows: dict[Part, int]
    groups: dict[Part, int]
    mode: str
    steps_per_epoch: int
    max_steps: int
    evaluations_per_epoch: float
    trained_parameters: int
    parameters: int
    step_cost: str
    checks: list[PreflightCheck]
    places: Places = ALONE
    needs: Needs = NOTHING  # of one training
    estimate: Estimate | None = None

    @classmethod
    def of(
        cls,
        parts: Parts,
        schedule: Schedule,
        model: Any,
        parameters: int,
        step_cost: str,
        checks: list[PreflightCheck],
        places: Places = ALONE,
        needs: Needs = NOTHING,
    ) -> "DryRun":
        """``model`` is the one to train; ``parameters`` are those before layers were added."""
        return cls(
            rows=parts.rows,
            groups=parts.groups,
            mode=parts.mode,
            steps_per_epoch=schedule.steps_per_epoch,
            max_steps=schedule.max_steps,
            evaluations_per_epoch=schedule.evaluations_per_epoch,
            trained_parameters=num_parameters(model, trained=True),
            parameters=parameters,
            step_cost=step_cost,
            checks=checks,
            places=places,
            needs=needs,
        )


@dataclass(frozen=True)
class Ready:
    """What a dry run has loaded: the model to train as it is before the first step."""

    loaded: LoadedModel
    windows: WindowDataset
    schedule: Schedule
    places: Places
    needs: Needs
    load_seconds: float


def dry_run_of(parts: Parts, recipe: Recipe, target: Target, folder: Path) -> tuple[DryRun, Ready]:
    """Load the model, check it with the rows and settings, and count; ``folder`` must exist.

    Raises UserError for what cannot work. Nothing is written.
    """
    checks = _check_settings(parts, recipe)
    if recipe.eval.embedding_model:
        Encoder.load(recipe.eval.embedding_model)
    check_trackers(recipe.train.report_to)
    sample = [*parts.validation, *parts.train][: recipe.eval.batch_size]
    whole_nats = whole_base_nats(target, recipe, sample)
    began = time.monotonic()
    loaded = target.load(recipe)
    load_seconds = time.monotonic() - began
    model, tokenizer = loaded.model, loaded.tokenizer
    limit = context_length(model)
    if limit is not None and recipe.eval.max_new_tokens >= limit:
        raise UserError(
            f"eval.max_new_tokens must be under {limit}, what this model can read, got "
            f"{recipe.eval.max_new_tokens}."
        )
    size = token_size(tokenizer, parts.train)
    if size.warning:
        checks.append(PreflightCheck("tokenizer", "warning", size.warning))
    checks += check_quantized_base(loaded, recipe, sample, whole_nats)
    parameters = loaded.parameters
    vocabulary = model.get_input_embeddings().weight.shape[0]
    windows = WindowDataset(parts.train, tokenizer, recipe.data.max_length)
    checks += check_windows(windows, tokenizer, limit)
    check_renderings([*parts.validation, *parts.test], tokenizer)
    if recipe.augment:
        augmentations = augmentations_of(recipe, target, lambda name: parts.mixed[name])
        checks += check_variants(augmentations, parts.train, recipe)
        # What asks a model would take long here, and changes the number of windows little.
        quick = [augmentation for augmentation in augmentations if not augmentation.SLOW]
        windows = augmented_windows(parts.train, tokenizer, recipe, quick)
    schedule = Schedule.of(len(windows), recipe)
    groups = parts.groups
    heldout_groups = groups["validation"] if parts.mode == "split" else groups["train"]
    checks += check_evaluation(schedule, heldout_groups)
    model = prepare(loaded, recipe, is_scratch=bool(target.from_scratch))

    def check_regularizers(recipe: Recipe) -> list[Regularizer]:
        regularizers = regularizers_of(recipe)
        check_together(regularizers)
        optimizer_arguments(recipe, regularizers)
        for regularizer in regularizers:
            regularizer.check(model, recipe)
            if isinstance(regularizer, Distillation):
                regularizer.check_tokenizer(tokenizer)
        decay_in_words(regularizers, recipe, Schedule.of(len(windows), recipe).max_steps)
        return regularizers

    regularizers = check_regularizers(recipe)
    if decay := decay_in_words(regularizers, recipe, schedule.max_steps):
        checks.append(PreflightCheck("weight decay", "ok", decay))
    is_searched = recipe.train.learning_rate is None and RATE not in recipe.search.ranges
    if is_searched and parts.mode == "split":  # folds have other numbers of rows
        words = search_in_words(schedule, recipe)
        checks.append(PreflightCheck("learning rate", "ok", words))
    usual = partial(usual_rate, target, recipe)
    if search := check_ranges(recipe, usual, check_regularizers):
        checks.append(PreflightCheck("search", "ok", search))
    if ablation := check_ablation(recipe, check_regularizers):
        checks.append(PreflightCheck("ablation", "ok", ablation))
    checks += check_resources(model, windows, recipe, regularizers, folder, vocabulary)
    needs = Needs.of(model, windows, recipe, regularizers, schedule.max_steps)
    num_tasks = _trainings_at_once(parts, recipe)
    if is_searched and rates_at_once(recipe) > 1:
        share = trial_steps(schedule, recipe) / schedule.max_steps
        trial = replace(needs, seconds=share * needs.seconds)
        places = Places.plan_with_search(recipe, num_tasks, needs, trial)
    else:
        places = Places.plan(recipe, num_tasks, needs)
    if max(num_tasks, places.most) > 1:
        checks.append(PreflightCheck("side by side", "ok", places.words))
    cost = total_cost(regularizers, model)
    plan = DryRun.of(parts, schedule, model, parameters, cost, checks, places, needs)
    loaded = replace(loaded, model=model)
    return plan, Ready(loaded, windows, schedule, places, needs, load_seconds)


def _trainings_at_once(parts: Parts, recipe: Recipe) -> int:
    """How many trainings of a run do not depend on each other."""
    if parts.mode == "cross_validation":
        return recipe.eval.folds - 1  # the first tells how long the others are
    searched = max(tune.trainings_at_once(recipe), ablate.trainings_at_once(recipe))
    return max(2 if recipe.control.fixed_epochs else 1, searched)


def _check_settings(parts: Parts, recipe: Recipe) -> list[PreflightCheck]:
    """What rows and settings tell before a model is loaded."""
    checks = [PreflightCheck("data", "ok", note) for note in parts.about.get("reading", ())]
    checks += [PreflightCheck("groups", "warning", note) for note in parts.about.get("notes", ())]
    if recipe.eval.metric:
        load_metric(recipe.eval.metric)
        if parts.train[0].kind == "text":
            raise UserError(
                f"eval.metric={recipe.eval.metric} needs prompts with answers; these rows are "
                "plain text: leave it out."
            )
    groups = parts.groups
    if parts.rows["test"] and groups["test"] < 2:
        raise UserError(
            "The test part has 1 group; at least 2 are needed for an interval, and 30 for a claim."
        )
    if 0 < groups["test"] < LEAST_HELD_OUT:
        words = f"{groups['test']} groups are too few for a claim; give {LEAST_HELD_OUT} or more"
        checks.append(PreflightCheck("test part", "warning", words))
    if parts.mode == "cross_validation":
        if recipe.search.ranges:
            raise UserError(
                f"search.ranges compares trainings on a validation part, and with "
                f"{groups['train']} groups there are only folds: set search.ranges={{}} and "
                "train.schedule=constant, or give more rows."
            )
        if recipe.search.ablate != "off":
            raise UserError(
                f"search.ablate={recipe.search.ablate} compares trainings on a validation part, "
                f"and with {groups['train']} groups there are only folds: set search.ablate=off, "
                "or give more rows."
            )
        if recipe.train.schedule != "constant":
            raise UserError(
                f"train.schedule={recipe.train.schedule} cannot be used with cross-validation, "
                "which finds the epoch to stop at: folds and final run would decay differently. "
                "Use constant."
            )
        for name, parameters in recipe.regularizers.items():
            if build("regularizer", name, parameters).NEEDS_VALIDATION:
                raise UserError(
                    f"regularizers.{name} chooses by a validation part, and with "
                    f"{groups['train']} groups there are only folds: take it out with "
                    f"--set regularizers.{name}=false, or give more rows."
                )
        ignored = [
            name
            for name, wanted in (
                ("control.fixed_epochs", recipe.control.fixed_epochs),
                ("eval.metric", recipe.eval.metric and not parts.rows["test"]),
            )
            if wanted
        ]
        if ignored:
            raise UserError(
                f"{' and '.join(ignored)} cannot be used: with {groups['train']} groups there is "
                "no test part, only cross-validation. Leave it out, or give more rows."
            )
    return checks
