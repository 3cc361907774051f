"""The main job: from a model and a data set to a better checkpoint and the report that proves it.

Every stage leaves a file in the run folder and is skipped where the file exists, so that a run can
be resumed after any kill: data -> checks -> searches -> training -> control arm -> sealed test ->
samples -> verdict, report, card.
"""

import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from heldout.core.environment import environment
from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.regularizer import overrides_hook
from heldout.core.run import Run
from heldout.core.verdict import Verdicts
from heldout.jobs.evidence.judge import judge, publish
from heldout.jobs.evidence.measure import measure_on_test, write_samples
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.clean_losses import losses_of, measurer
from heldout.jobs.kit.condition import Condition, Trained
from heldout.jobs.kit.cross_validate import cross_validate
from heldout.jobs.kit.dry_run import Plan, make_plan
from heldout.jobs.kit.fidelity import measure_fidelity
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.metrics import load_metric
from heldout.jobs.kit.parts import Parts, Texts, load_parts, read_parts, write_parts
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.run_folder import default_folder, existing_parent
from heldout.jobs.kit.target import Target, training_device
from heldout.jobs.kit.tune import tune
from heldout.lm.quiet import quiet_libraries
from heldout.training.keeper import replace_folder
from heldout.training.loop import Outcome, Schedule
from heldout.training.preflight import check_base_loss
from heldout.training.windows import WindowDataset


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
    chosen = _chosen(recipe, settings, from_scratch)
    progress = progress or Progress()
    target = Target.of(model, from_scratch)
    folder = Path(out) if out else default_folder(model, data)
    Run.refuse_occupied(folder)
    with quiet_libraries(), progress.stage("data and checks"):
        parts = read_parts(data, chosen)
        plan = make_plan(parts, chosen, target, existing_parent(folder))
    run = Run.create(folder, chosen)
    write_parts(run, parts, chosen)
    run.write_json("checks.json", [vars(check) for check in plan.checks])
    run.write_json(
        "environment.json",
        environment(
            model=target.model,
            from_scratch=target.from_scratch,
            device=training_device(),
            threads=chosen.train.threads or torch.get_num_threads(),
            precision=chosen.train.precision,
        ),
    )
    progress.note(f"each step: {plan.step_cost}")
    for check in plan.checks:
        if check.status == "warning":
            progress.note(f"warning: {check.name}: {check.message}")
    return _run_stages(run, target, progress)


def resume(folder: str | Path, *, progress: Progress | None = None) -> FitResult:
    """Go on with a run that was interrupted or killed; a complete one is only judged again."""
    run = Run.open(Path(folder))
    if not run.path("environment.json").exists():
        raise UserError(f"{folder} stopped before its data was written: start it anew.")
    known = run.read_json("environment.json")
    return _run_stages(run, Target(known["model"], known["from_scratch"]), progress or Progress())


def dry_run(
    model: str,
    data: str,
    *,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
    out: str | Path | None = None,
) -> Plan:
    """Everything up to the first step; nothing is written."""
    chosen = _chosen(recipe, settings, from_scratch)
    folder = Path(out) if out else default_folder(model, data)
    Run.refuse_occupied(folder)
    with quiet_libraries():
        parts = read_parts(data, chosen)
        return make_plan(parts, chosen, Target.of(model, from_scratch), existing_parent(folder))


def _chosen(recipe: str | Path | Recipe, settings: Sequence[str], from_scratch: str) -> Recipe:
    if isinstance(recipe, Recipe):
        if settings:
            raise UserError("settings go with a recipe's name or file, not with a Recipe object.")
        chosen = recipe
    else:
        chosen = load_recipe(recipe, settings)
    if chosen.hyperfit != Recipe().hyperfit:
        raise UserError(
            "hyperfit.*: fit stops on held-out loss and does not read these settings: leave them "
            "out, or use heldout hyperfit."
        )
    if from_scratch and chosen.model.method != "full":
        raise UserError(
            "--from-scratch trains all parameters: use --recipe full, or --set model.method=full."
        )
    return chosen


def _run_stages(run: Run, target: Target, progress: Progress) -> FitResult:
    start = time.monotonic()
    earlier = run.status.get("seconds", 0.0), run.status.get("peak_gb", 0.0)

    def status(state: str, **details: Any) -> None:
        run.write_status(
            state,
            seconds=earlier[0] + time.monotonic() - start,
            peak_gb=max(earlier[1], _peak_gb()),
            **details,
        )

    try:
        with quiet_libraries(), stop_on_interrupt() as request:
            status("training", message="")
            verdict = _stages(run, target, request, progress, lambda: status("training"))
    except Interrupted:
        status("interrupted", message="stopped by the user")
        _publish_what_there_is(run)
        raise
    except UserError as error:
        status("failed", message=str(error))
        _publish_what_there_is(run)
        raise
    status("complete", message="")
    publish(run)
    shutil.rmtree(run.path("checkpoints"), ignore_errors=True)
    return FitResult(run, verdict)


def _stages(
    run: Run,
    target: Target,
    stop: Callable[[], bool] | Any,
    progress: Progress,
    tick: Callable[[], None],
) -> Verdicts:
    recipe = run.recipe
    parts = load_parts(run)
    followed = set(parts.followed)
    texts = Texts(
        parts.train, parts.validation, [row for row in parts.train if row.index in followed]
    )

    def asked() -> bool:
        return bool(stop)

    def check_interrupt(interrupted: bool) -> None:
        if interrupted or asked():
            raise Interrupted

    common: dict[str, Any] = {"stop": asked, "progress": progress}
    if parts.mode == "split" and not run.path("result.json").exists():
        tune(run, target, texts, **common, check_interrupt=check_interrupt)
        recipe = run.recipe
    if recipe.augment and not run.path("augmentation.json").exists():
        measure_fidelity(run, target, recipe, parts.train, progress)
        check_interrupt(False)
    if parts.mode == "cross_validation":
        _cross_validated(run, target, recipe, parts, texts, common, check_interrupt)
    else:
        if not run.path("result.json").exists():
            rate = find_learning_rate(
                run, target, recipe, texts, **common, check_interrupt=check_interrupt
            )
            tick()
            _train_main(run, target, recipe, texts, rate, common, check_interrupt)
        tick()
        rate = run.read_json("result.json")["learning_rate"]
        if recipe.control.fixed_epochs and not run.path("fixed_epochs").is_dir():
            _train_control(run, target, recipe, texts, rate, common, check_interrupt)
        tick()
    if parts.rows["test"] and not run.path("recitals.json").exists():
        metric = load_metric(recipe.eval.metric) if recipe.eval.metric else None
        measure_on_test(run, target, recipe, metric, progress, check_interrupt)
    check_interrupt(False)
    if not run.path("samples.json").exists():
        write_samples(run, target, recipe, progress)
    tick()
    verdict = judge(run)
    _write_figures(run)
    return verdict


def _train_main(run, target, recipe, texts, rate, common, check_interrupt) -> None:
    condition = Condition(run, target, recipe, texts, rate, recipe.train.max_epochs)
    trained = condition.train(
        **common, name="training", before_first_step=_base_check(run, texts, recipe)
    )
    trained.save(run.last)
    check_interrupt(trained.outcome.interrupted)
    evaluations = trained.evaluations
    best = min(evaluations, key=lambda evaluation: evaluation.validation.nats_per_token)
    run.save_losses("base", "validation", evaluations[0].validation)
    run.save_losses("best", "validation", best.validation)
    run.save_losses("last", "validation", evaluations[-1].validation)
    finished = _finish(run, trained, recipe, texts, best.validation)
    _write_result(
        run, trained.model, recipe, rate, best.step, best.epoch, trained.outcome, finished
    )


def _finish(run: Run, trained: Trained, recipe: Recipe, texts: Texts, best: DocumentLosses) -> dict:
    """Let regularizers improve the best weights; kept only if the held-out loss falls."""
    users = [r for r in trained.regularizers if overrides_hook(r, "finish")]
    if not users:
        return {}
    if run.path("finish.json").exists():
        return run.read_json("finish.json")
    model, tokenizer = trained.model, trained.tokenizer
    load_weights(model, run.best)
    measure = measurer(model, tokenizer, recipe, texts)
    figures: dict[str, float] = {}
    for regularizer in users:
        figures |= regularizer.finish(model, lambda: measure("validation"))
    found = measure("validation")
    if found.nats_per_token < best.nats_per_token:
        replace_folder(run.best, lambda folder: save_model(model, tokenizer, folder))
        run.save_losses("best", "validation", found)
    run.write_json("finish.json", figures)
    return figures


def _cross_validated(run, target, recipe, parts: Parts, texts, common, check_interrupt) -> None:
    if run.path("result.json").exists():
        return
    first_train, first_heldout = parts.first_fold(recipe)
    fold_texts = Texts(first_train, first_heldout, first_train[: recipe.eval.max_train_rows])
    rate = find_learning_rate(
        run, target, recipe, fold_texts, **common, check_interrupt=check_interrupt
    )
    found = cross_validate(
        run, target, recipe, parts.train, rate, **common, check_interrupt=check_interrupt
    )
    if found.best_epoch == 0:
        loaded = target.load(recipe)
        model = prepare(loaded, recipe, is_scratch=bool(target.from_scratch))
        outcome = Outcome(0, 0.0, "no epoch was better than the base model", False, 0.0)
        trained = Trained(model, loaded.tokenizer, outcome, [], [])
    else:
        condition = Condition(
            run, target, recipe, Texts(parts.train, [], texts.followed), rate, found.best_epoch
        )
        trained = condition.train_unwatched(**common, name="training on all rows")
        check_interrupt(trained.outcome.interrupted)
    trained.save(run.last)
    trained.save(run.best)
    outcome = trained.outcome
    _write_result(run, trained.model, recipe, rate, outcome.step, outcome.epoch, outcome, {})


def _train_control(run, target, recipe, texts, rate, common, check_interrupt) -> None:
    """The same model, rows and rate with nothing added, for a fixed number of epochs."""
    condition = Condition(
        run,
        target,
        replace(recipe, regularizers={}, augment={}),
        texts,
        rate,
        recipe.control.fixed_epochs,
        history_name="control_history.jsonl",
        folder="checkpoints/control",
        keep_best=False,
    )
    trained = condition.train(**common, name="control without regularization")
    check_interrupt(trained.outcome.interrupted)
    run.save_losses("fixed_epochs", "validation", trained.evaluations[-1].validation)
    partial = run.path("fixed_epochs.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trained.save(partial)
    partial.rename(run.path("fixed_epochs"))


def _base_check(run: Run, texts: Texts, recipe: Recipe):
    """The base model's own loss, checked before the first step and added to the list."""

    def check(model, tokenizer, windows: WindowDataset, schedule: Schedule) -> None:
        sample = texts.validation[: recipe.eval.batch_size]
        base: DocumentLosses = losses_of(model, tokenizer, sample, recipe)
        entries = run.read_json("checks.json")
        if all(entry["name"] != "base model" for entry in entries):
            found = check_base_loss(base, model.get_input_embeddings().weight.shape[0])
            run.write_json("checks.json", entries + [vars(check) for check in found])

    return check


def _write_result(run, model, recipe, rate, best_step, best_epoch, outcome, finished) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    run.write_json(
        "result.json",
        {
            "schema": "heldout.result/1",
            "best_step": best_step,
            "best_epoch": best_epoch,
            "last_step": outcome.step,
            "last_epoch": outcome.epoch,
            "steps_per_epoch": round(outcome.step / outcome.epoch) if outcome.epoch else 0,
            "stop_reason": outcome.reason,
            "learning_rate": rate,
            "method": recipe.model.method,
            "trained_parameters": trained,
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds_training": outcome.seconds,
            "finish": finished,
        },
    )


def _write_figures(run: Run) -> None:
    """The main numbers by name, with time and memory, into ``result.json``."""
    figures = {}
    for measured in run.read_json("measurements.json")["measurements"]:
        if measured["status"] != "measured":
            continue
        figures[measured["name"]] = measured["value"]
        for control, contrast in measured["contrasts"].items():
            figures[f"{measured['name']}_minus_{control}"] = contrast["difference"]
            figures[f"{measured['name']}_minus_{control}_low"] = contrast["interval"]["low"]
            figures[f"{measured['name']}_minus_{control}_high"] = contrast["interval"]["high"]
    found = run.read_json("result.json")
    run.write_json(
        "result.json",
        {
            **found,
            "seconds": run.status.get("seconds", 0.0),
            "peak_gb": run.status.get("peak_gb", 0.0),
            "figures": figures,
        },
    )


def _peak_gb() -> float:
    """Most memory that this process has held so far, on the device that trains."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # ru_maxrss starts at what the starting process had held
            return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _publish_what_there_is(run: Run) -> None:
    judge(run)
    publish(run)
