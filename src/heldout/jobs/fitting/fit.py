"""The main job: from a model and a data set to a better checkpoint and the report that proves it.

Every stage leaves a file in the run folder and is skipped where the file exists, so that a run can
be resumed after any kill: data -> checks -> searches -> training -> control -> sealed test ->
samples -> verdict, report, card.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heldout.core.augmentation import Augmentation
from heldout.core.errors import UserError
from heldout.core.job_time import Estimate
from heldout.core.lock import alone_in
from heldout.core.progress import Progress, told
from heldout.core.recipe import DEFAULT, Recipe
from heldout.core.regularizer import Regularizer
from heldout.core.run import Run
from heldout.core.shown import Shown, framed
from heldout.core.verdict import Verdicts
from heldout.jobs.evidence.judge import judge_run, publish
from heldout.jobs.evidence.measure import measure_on_test, write_samples
from heldout.jobs.fitting.budget import CHECK, Budget, as_planned, planned
from heldout.jobs.fitting.control import NAME as CONTROL
from heldout.jobs.fitting.control import control_task
from heldout.jobs.fitting.cross_validate import train_by_folds
from heldout.jobs.fitting.estimate import REPORT, SEARCH, TEST, TRAINING, work_of
from heldout.jobs.fitting.main_training import train_main
from heldout.jobs.fitting.result_file import tell_trackers, write_figures
from heldout.jobs.kit.ablate import ablate
from heldout.jobs.kit.chosen_recipe import default_in_words, recipe_for, with_objects
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.dry_run import DryRun, dry_run_of
from heldout.jobs.kit.earlier_run import EarlierRuns
from heldout.jobs.kit.fidelity import measure_fidelity
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.given_data import DataSource, GivenData, given_data
from heldout.jobs.kit.given_model import GivenModel, ModelSource, given_again, given_model
from heldout.jobs.kit.metrics import load_metric
from heldout.jobs.kit.parts import Parts, load_parts, read_parts
from heldout.jobs.kit.places import Places, threads_of
from heldout.jobs.kit.run_folder import (
    default_folder,
    existing_parent,
    note_warnings,
    open_started,
    start_run,
)
from heldout.jobs.kit.side_by_side import SideBySide
from heldout.jobs.kit.stages import StatusClock, stages_of
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.tune import tune
from heldout.jobs.planning.advice_line import advice_line
from heldout.jobs.planning.fine_tuning_facts import free_memory
from heldout.lm.load import count_parameters
from heldout.lm.quiet import quiet_libraries

PLAN = "heldout.run_plan/1"
READING = "data and checks"


@dataclass(frozen=True)
class FitResult(Shown):
    """The run folder and what it found; its table is the course of the training."""

    run: Run
    verdict: Verdicts

    def table_rows(self) -> list[dict[str, Any]]:
        """Each evaluation during training."""
        return self.run.history()

    def _repr_html_(self) -> str:
        return framed(self, self.report)

    @property
    def best(self) -> Path:
        """The folder of the best checkpoint."""
        return self.run.best

    @property
    def report(self) -> Path:
        """The page that proves it."""
        return self.run.path("report.html")


@dataclass(frozen=True)
class _Asked:
    """What a new run is to be, with models and rows where they can be read."""

    given: GivenModel
    data: GivenData
    target: Target
    folder: Path
    asked: str | Path | Recipe
    recipe: Recipe

    def parts(self) -> Parts:
        return self.data.renamed(read_parts(self.data.path, self.recipe))


@contextmanager
def _asked(
    model: Any,
    data: Any,
    tokenizer: Any,
    out: str | Path | None,
    recipe: str | Path | Recipe,
    settings: Sequence[str],
    regularizers: Sequence[Regularizer],
    augmentations: Sequence[Augmentation],
    from_scratch: str,
) -> Iterator[_Asked]:
    with given_model(model, tokenizer) as given, given_data(data) as rows:
        target = Target.of(given.name, from_scratch)
        chosen = with_objects(_chosen(recipe, settings, target), regularizers, augmentations)
        folder = Path(out) if out else default_folder(given.shown, rows.shown)
        Run.refuse_occupied(folder)
        yield _Asked(given, rows, target, folder, recipe, chosen)


def fit(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    regularizers: Sequence[Regularizer] = (),
    augmentations: Sequence[Augmentation] = (),
    from_scratch: str = "",
    progress: Progress | None = None,
) -> FitResult:
    """Fine-tune ``model`` on ``data``, keep the best checkpoint, and write the report.

    model: folder, Hub id, adapter folder, checkpoint-N, GGUF file, ``package:NAME``, or a model of
    transformers or peft as an object, with its ``tokenizer``; the object itself is not trained.
    data: jsonl, json, csv, parquet, txt, a folder of these, or a Hub data set; or rows as objects:
    a list of dicts, a DataFrame, a Dataset, or several of these by part (DatasetDict).
    settings: ``section.key=value`` overrides of the recipe.
    regularizers, augmentations: objects beside those of the recipe, in whose place they stand.
    Raises UserError before anything is written for what cannot work, Interrupted on Ctrl-C.
    """
    progress, began = told(progress), time.monotonic()
    objects = (regularizers, augmentations)
    with _asked(model, data, tokenizer, out, recipe, settings, *objects, from_scratch) as asked:
        return _fit(asked, progress, began)


def _fit(asked: _Asked, progress: Progress, began: float) -> FitResult:
    target, folder = asked.target, asked.folder
    with quiet_libraries(), progress.stage("data and checks"):
        parts = asked.parts()
        dry, chosen, budget = _plan(parts, asked, began)
    assert dry.estimate is not None
    plan = {"schema": PLAN, "estimate": dry.estimate.to_json(), "budget": budget and vars(budget)}
    with alone_in(folder):
        run = start_run(
            folder,
            chosen,
            parts,
            dry.checks,
            plan,
            model=target.model,
            from_scratch=target.from_scratch,
            openings=EarlierRuns.of(target.model).openings(parts),
            **asked.given.about,
            **dry.places.kept,
        )
        spent = time.monotonic() - began
        run.write_status("started", seconds=spent, parts={READING: spent})
        progress.note(f"time: {dry.estimate.words}")
        if budget is not None:
            progress.note(f"{CHECK}: {budget.words_before}")
        progress.note(f"each step: {dry.step_cost}")
        note_warnings(dry.checks, progress)
        result = _run_stages(run, target, progress)
        asked.given.finish(run)
        return result


def resume(
    folder: str | Path,
    *,
    model: ModelSource | None = None,
    tokenizer: Any = None,
    regularizers: Sequence[Regularizer] = (),
    augmentations: Sequence[Augmentation] = (),
    end_search: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Go on with a run that was interrupted or killed; a complete one is only judged again.

    model, tokenizer: again, where the run was given them as objects; another model is refused.
    regularizers, augmentations: again, where of classes of your own; their parameters are kept.
    end_search: try no more of ``search.ranges``, and train the best settings so far.
    trust_code: run code that the run's recipe names, a metric of a file or a model's own; else
    UserError where it names any.
    """
    with_objects(Recipe(), regularizers, augmentations)
    with given_again(Run.open(Path(folder)), model, tokenizer) as given:
        run, known = open_started(folder, trust_code=trust_code)
        if known.get("job") == "hyperfit":
            raise UserError(
                f"{folder} is a run of `heldout hyperfit`: use `heldout hyperfit --resume`."
            )
        if end_search and not run.recipe.search.ranges:
            raise UserError(f"--end-search: {folder} has no search that goes on; leave it out.")
        target = Target(known["model"], str(known.get("from_scratch") or ""))
        if run.status.get("state") == "complete":
            told(progress).note(run.words_for_more())
        with alone_in(run.folder):
            result = _run_stages(run, target, told(progress), ends_search=end_search)
            given.finish(run)
            return result


def dry_run(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    regularizers: Sequence[Regularizer] = (),
    augmentations: Sequence[Augmentation] = (),
    from_scratch: str = "",
    out: str | Path | None = None,
) -> DryRun:
    """Everything up to the first step, with the arguments of ``fit``; nothing is written."""
    began, objects = time.monotonic(), (regularizers, augmentations)
    with (
        _asked(model, data, tokenizer, out, recipe, settings, *objects, from_scratch) as asked,
        quiet_libraries(),
    ):
        target, parts, free = asked.target, asked.parts(), free_memory()
        plan, chosen, _ = _plan(parts, asked, began)
        if not target.from_scratch and not isinstance(recipe, Recipe):
            trusts = chosen.model.trust_remote_code
            adapter = count_parameters(target.model, trust_remote_code=trusts) is None
            plan.checks.append(advice_line(parts, plan.parameters, free, chosen, adapter=adapter))
        return plan


def _plan(parts: Parts, asked: _Asked, began: float) -> tuple[DryRun, Recipe, Budget | None]:
    """What a run does, by the recipe as its minutes hold it, if it has any."""
    chosen = asked.recipe
    EarlierRuns.of(asked.target.model).refuse_seen(parts)
    dry, ready = dry_run_of(parts, chosen, asked.target, existing_parent(asked.folder))
    if asked.asked == DEFAULT:
        dry.checks.insert(0, default_in_words(chosen))
    work = work_of(ready, parts, chosen)
    if not chosen.train.max_minutes:
        return replace(dry, estimate=work.estimate()), chosen, None
    plan = planned(work, time.monotonic() - began)
    return as_planned(dry, plan), plan.work.recipe, plan.budget


def _chosen(recipe: str | Path | Recipe, settings: Sequence[str], target: Target) -> Recipe:
    with quiet_libraries():
        chosen = recipe_for(target, recipe, settings)
    if chosen.hyperfit != Recipe().hyperfit:
        raise UserError(
            "hyperfit.*: fit stops on held-out loss and does not read these settings: leave them "
            "out, or use heldout hyperfit."
        )
    if target.from_scratch and chosen.model.method != "full":
        raise UserError(
            "--from-scratch trains all parameters: use --recipe full, or --set model.method=full."
        )
    return chosen


def _run_stages(
    run: Run, target: Target, progress: Progress, *, ends_search: bool = False
) -> FitResult:
    def publish_what_there_is() -> None:
        judge_run(run)
        publish(run)

    places = Places.of_environment(run.read_json("environment.json"))
    with (
        threads_of(places),
        stages_of(run, with_memory=True, after_failure=publish_what_there_is) as (clock, request),
    ):
        parts = load_parts(run)
        context = RunContext(run, target, run.recipe, parts.texts, progress, request, places)
        if run.path("plan.json").exists():
            estimate = Estimate.from_json(run.read_json("plan.json")["estimate"])
            progress.job(estimate.parts, spent=clock.seconds - clock.parts.get(READING, 0.0))
        _begin(context, clock, SEARCH)
        if parts.mode == "split" and not run.path("result.json").exists():
            tune(context, ends=ends_search)
            ablate(replace(context, recipe=run.recipe))
            context = replace(context, recipe=run.recipe)
        verdict = _stages(context, parts, clock)
    publish(run)
    progress.job(())
    shutil.rmtree(run.path("checkpoints"), ignore_errors=True)
    return FitResult(run, verdict)


def _begin(context: RunContext, clock: StatusClock, part: str) -> None:
    """For the progress and for the status."""
    context.progress.part(part)
    clock.begin(part)


def _stages(context: RunContext, parts: Parts, clock: StatusClock) -> Verdicts:
    """Whatever of the run is not there yet, in its order."""
    run, target, progress = context.run, context.target, context.progress
    recipe = context.recipe
    if recipe.augment and not run.path("augmentation.json").exists():
        measure_fidelity(run, target, recipe, parts.train, progress)
        context.check_interrupt()
    with context.side_by_side() as beside:
        if parts.mode == "cross_validation":
            train_by_folds(context, parts, lambda: _begin(context, clock, TRAINING))
        else:
            context = _train_split(context, clock, beside)
        if parts.rows["test"] and not run.path("recitals.json").exists():
            _begin(context, clock, TEST)
            _measure_on_test(context, beside)
        beside.finish()
        clock.others_gb = beside.peak_gb
    context.check_interrupt()
    _begin(context, clock, REPORT)
    if not run.path("samples.json").exists():
        write_samples(run, target, context.recipe, progress)
    clock.tick()
    verdict = judge_run(run)
    write_figures(run)
    tell_trackers(run, verdict, progress)
    return verdict


def _train_split(context: RunContext, clock: StatusClock, beside: SideBySide) -> RunContext:
    """The main training, where there is a validation part, and its control beside or after it.

    The context comes back with the control for which a run's minutes had time.
    """
    run, recipe = context.run, context.recipe
    is_trained = run.path("result.json").exists()
    budget = Budget.of_run(run)
    with beside.kept():
        if is_trained:
            rate = run.read_json("result.json")["learning_rate"]
        else:
            rate = find_learning_rate(context, beside)
        if recipe.control.fixed_epochs and not run.path("fixed_epochs").is_dir():
            beside.add(control_task(context, rate))
    if not is_trained:
        clock.begin(TRAINING)
        train_main(context, rate, lambda: budget is not None and budget.is_up(clock.seconds))
    if budget is not None and not recipe.control.fixed_epochs:
        context = _with_control(context, clock, budget)
        if context.recipe.control.fixed_epochs:
            beside.add(control_task(context, rate))
    beside.check()
    if context.recipe.control.fixed_epochs and not beside.has_others:
        _begin(context, clock, CONTROL)
        beside.finish()
    clock.tick()
    return context


def _with_control(context: RunContext, clock: StatusClock, budget: Budget) -> RunContext:
    """The run's recipe gets the control that there is time for; ``checks.json`` tells."""
    run, recipe, progress = context.run, context.recipe, context.progress
    if run.path("recitals.json").exists():
        return context  # decided before the sealed test
    epochs, words = budget.control(clock.seconds, run.read_json("result.json"))
    progress.note(words)
    checks = run.read_json("checks.json")
    for check in checks:
        if check["name"] == CHECK:
            check["message"] = " ".join([budget.words, words])
    run.write_json("checks.json", checks)
    run.write_text("recipe.toml", recipe.replace(control={"fixed_epochs": epochs}).to_toml())
    return replace(context, recipe=run.recipe)


def _measure_on_test(context: RunContext, beside: SideBySide) -> None:
    """Open the sealed test; the control, read last, may still be trained meanwhile."""
    recipe = context.recipe

    def wait_for(name: str) -> None:
        if name == "fixed_epochs":
            beside.finish()
        context.check_interrupt()

    metric = load_metric(recipe.eval.metric) if recipe.eval.metric else None
    measure_on_test(context.run, context.target, recipe, metric, context.progress, wait_for)
