"""The main job: from a model and a data set to a better checkpoint and the report that proves it.

Every stage leaves a file in the run folder and is skipped where the file exists, so that a run can
be resumed after any kill: data -> checks -> searches -> training -> control -> sealed test ->
samples -> verdict, report, card.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.job_time import Estimate
from heldout.core.lock import alone_in
from heldout.core.progress import Progress
from heldout.core.recipe import DEFAULT, Recipe
from heldout.core.run import Run
from heldout.core.verdict import Verdicts
from heldout.jobs.evidence.judge import judge_run, publish
from heldout.jobs.evidence.measure import measure_on_test, write_samples
from heldout.jobs.fitting.budget import CHECK, Budget, as_planned, planned
from heldout.jobs.fitting.control import NAME as CONTROL
from heldout.jobs.fitting.control import control_task
from heldout.jobs.fitting.cross_validate import train_by_folds
from heldout.jobs.fitting.estimate import REPORT, SEARCH, TEST, TRAINING, work_of
from heldout.jobs.fitting.main_training import train_main
from heldout.jobs.fitting.result_file import write_figures
from heldout.jobs.kit.ablate import ablate
from heldout.jobs.kit.chosen_recipe import default_in_words, recipe_for
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.dry_run import DryRun, dry_run_of
from heldout.jobs.kit.fidelity import measure_fidelity
from heldout.jobs.kit.find_rate import find_learning_rate
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
class FitResult:
    """The run folder and what it found."""

    run: Run
    verdict: Verdicts

    @property
    def best(self) -> Path:
        return self.run.best

    @property
    def report(self) -> Path:
        return self.run.path("report.html")


def fit(
    model: str,
    data: str,
    *,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
    progress: Progress | None = None,
) -> FitResult:
    """Fine-tune ``model`` on ``data``, keep the best checkpoint, and write the report.

    model: folder, Hub id, adapter folder, checkpoint-N, GGUF file, or ``package:NAME``.
    data: jsonl, json, csv, parquet, txt, a folder of these, or a Hub data set.
    settings: ``section.key=value`` overrides of the recipe.
    Raises UserError before anything is written for what cannot work, Interrupted on Ctrl-C.
    """
    progress, began = progress or Progress(), time.monotonic()
    target = Target.of(model, from_scratch)
    chosen = _chosen(recipe, settings, target)
    folder = Path(out) if out else default_folder(model, data)
    Run.refuse_occupied(folder)
    with quiet_libraries(), progress.stage("data and checks"):
        parts = read_parts(data, chosen)
        dry, chosen, budget = _plan(parts, recipe, chosen, target, folder, began)
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
            **dry.places.kept,
        )
        spent = time.monotonic() - began
        run.write_status("started", seconds=spent, parts={READING: spent})
        progress.note(f"time: {dry.estimate.words}")
        if budget is not None:
            progress.note(f"{CHECK}: {budget.words_before}")
        progress.note(f"each step: {dry.step_cost}")
        note_warnings(dry.checks, progress)
        return _run_stages(run, target, progress)


def resume(
    folder: str | Path,
    *,
    ends_search: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Go on with a run that was interrupted or killed; a complete one is only judged again.

    ends_search: try no more of ``search.ranges``, and train the best settings so far.
    trust_code: run code that the run's recipe names, a metric of a file or a model's own; else
    UserError where it names any.
    """
    run, known = open_started(folder, trust_code=trust_code)
    if known.get("job") == "hyperfit":
        raise UserError(
            f"{folder} is a run of `heldout hyperfit`: use `heldout hyperfit --resume`."
        )
    if ends_search and not run.recipe.search.ranges:
        raise UserError(f"--end-search: {folder} has no search that goes on; leave it out.")
    target = Target(known["model"], str(known.get("from_scratch") or ""))
    with alone_in(run.folder):
        return _run_stages(run, target, progress or Progress(), ends_search=ends_search)


def dry_run(
    model: str,
    data: str,
    *,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
    out: str | Path | None = None,
) -> DryRun:
    """Everything up to the first step; nothing is written."""
    target, began = Target.of(model, from_scratch), time.monotonic()
    chosen = _chosen(recipe, settings, target)
    folder = Path(out) if out else default_folder(model, data)
    Run.refuse_occupied(folder)
    with quiet_libraries():
        parts = read_parts(data, chosen)
        free = free_memory()
        plan, chosen, _ = _plan(parts, recipe, chosen, target, folder, began)
        if not target.from_scratch and not isinstance(recipe, Recipe):
            trusts = chosen.model.trust_remote_code
            adapter = count_parameters(target.model, trust_remote_code=trusts) is None
            plan.checks.append(advice_line(parts, plan.parameters, free, chosen, adapter=adapter))
        return plan


def _plan(
    parts: Parts,
    asked: str | Path | Recipe,
    chosen: Recipe,
    target: Target,
    folder: Path,
    began: float,
) -> tuple[DryRun, Recipe, Budget | None]:
    """What a run does, by the recipe as its minutes hold it, if it has any."""
    dry, ready = dry_run_of(parts, chosen, target, existing_parent(folder))
    if asked == DEFAULT:
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
