"""Where held-out parts would be too small, folds tell the epoch to stop at, and the gain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heldout.core.interrupt import StopRequest
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.regularizer import Evaluation, Weights
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.run_files import FoldCurve, FoldPoint
from heldout.data.split import folds
from heldout.jobs.fitting.result_file import write_result
from heldout.jobs.kit.condition import Condition, Trained
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.hand_on import begin_with_trial
from heldout.jobs.kit.parts import Parts, Texts
from heldout.jobs.kit.prepare import load_prepared
from heldout.jobs.kit.side_by_side import Task
from heldout.training.keeper import evaluations_of
from heldout.training.loop import Outcome


@dataclass(frozen=True)
class CrossValidation:
    """The mean curve over folds, its lowest point, and all rows' losses there, out of fold."""

    curve: FoldCurve
    best_epoch: float
    best_weights: Weights
    out_of_fold: DocumentLosses
    rows: list[Row]  # in the order of ``out_of_fold``


def train_by_folds(
    context: RunContext, parts: Parts, begin: Callable[[], None] = lambda: None
) -> None:
    """Train on all rows to the epoch that folds find best; ``result.json`` says it is done.

    ``begin`` is called once the rate is found.
    """
    run, recipe, target = context.run, context.recipe, context.target
    if run.path("result.json").exists():
        return
    rate = find_learning_rate(context)
    begin()
    found = cross_validate(context, parts.train, rate)
    if found.best_epoch == 0:
        model, tokenizer = load_prepared(target, recipe)
        outcome = Outcome(0, 0.0, "no epoch was better than the base model", False, 0.0)
        trained = Trained(model, tokenizer, outcome, [], [])
    else:
        all_rows = Texts(parts.train, [], context.texts.followed)
        condition = Condition(replace(context, texts=all_rows), rate, found.best_epoch)
        trained = condition.train_unwatched("training on all rows", found.best_weights)
        context.check_interrupt(trained.outcome.interrupted)
    trained.save(run.last)
    trained.save(run.best)
    write_result(
        context,
        trained,
        learning_rate=rate,
        best_step=trained.outcome.step,
        best_epoch=trained.outcome.epoch,
        best_weights=found.best_weights,
        finished={},
    )


def cross_validate(context: RunContext, rows: list[Row], learning_rate: float) -> CrossValidation:
    """Train once per fold on the other folds; every group is held out once.

    The first fold ends by the recipe's own early stopping; the others run as long, so that one
    curve over the same epochs can be averaged. Which weights count is decided by the rows of all
    folds together. Costs ``eval.folds`` trainings of that length.
    """
    recipe = context.recipe
    parts = folds(rows, recipe.eval.folds, recipe.data.seed)
    evaluations = _train_folds(context, len(parts), learning_rate)
    common = min(len(found) for found in evaluations)
    chosen = [pooled([found[point] for found in evaluations]) for point in range(common)]
    losses_T = [losses for _, losses in chosen]
    curve: list[FoldPoint] = []
    for point, (weights, losses) in enumerate(chosen):
        level, epoch = losses.estimate(), evaluations[0][point].epoch
        bounds = level.interval
        curve.append(FoldPoint(epoch, level.value, bounds.low, bounds.high, weights))
    best = min(range(common), key=lambda point: curve[point].validation_nll)
    ordered = [row for fold in parts for row in fold.held_out]
    best_epoch = curve[best].epoch
    found_curve = FoldCurve(len(parts), tuple(curve), best_epoch)
    result = CrossValidation(found_curve, best_epoch, chosen[best][0], losses_T[best], ordered)
    _write(context.run, result, base=losses_T[0], last=losses_T[-1])
    return result


def pooled(evaluations: Sequence[Evaluation]) -> tuple[Weights, DocumentLosses]:
    """The better weights over the rows of all folds, and their losses."""
    first, *others = (each.by_weights for each in evaluations)
    shared = [weights for weights in first if all(weights in each for each in others)]
    found = [
        (weights, DocumentLosses.concatenate([each.by_weights[weights] for each in evaluations]))
        for weights in shared
    ]
    return min(found, key=lambda each: each[1].nats_per_token)


def _train_folds(
    context: RunContext, num_folds: int, learning_rate: float
) -> list[list[Evaluation]]:
    """The evaluations of each fold's training; the folds after the first go side by side."""

    def task(index: int, max_epochs: float) -> Task:
        arguments = {
            "known": context.told,
            "index": index,
            "learning_rate": learning_rate,
            "max_epochs": max_epochs,
        }
        return Task(f"fold {index + 1} of {num_folds}", train_fold, arguments)

    first = task(0, context.recipe.train.max_epochs)
    first.function(context.progress, context.request, **first.arguments)
    horizon = evaluations_of(context.run, _history_name(0))[-1].epoch
    with context.side_by_side() as beside:
        beside.add(*(task(index, horizon) for index in range(1, num_folds)))
    return [evaluations_of(context.run, _history_name(index)) for index in range(num_folds)]


def train_fold(
    progress: Progress,
    request: StopRequest,
    *,
    known: dict[str, Any],
    index: int,
    learning_rate: float,
    max_epochs: float,
) -> None:
    """Train on the other folds; the history tells the losses of this one's rows.

    The first fold ends by the recipe's own early stopping, the others at ``max_epochs``.
    """
    context = RunContext.of_run(known, progress, request)
    recipe = context.recipe
    parts = folds(context.texts.train, recipe.eval.folds, recipe.data.seed)
    without_stopping = {
        name: parameters
        for name, parameters in recipe.regularizers.items()
        if name != "early_stopping"
    }
    own = replace(recipe, regularizers=without_stopping) if index else recipe
    fold = parts[index]
    texts = Texts(fold.train, fold.held_out, fold.train[: recipe.eval.max_train_rows])
    condition = Condition(
        replace(context, recipe=own, texts=texts),
        learning_rate,
        max_epochs,
        history_name=_history_name(index),
        folder=f"checkpoints/fold_{index}",
        keep_best=False,
    )
    if index == 0:  # the fold that the rate was searched on
        begin_with_trial(condition)
    trained = condition.train(f"fold {index + 1} of {len(parts)}")
    context.check_interrupt(trained.outcome.interrupted)


def _history_name(index: int) -> str:
    return f"fold_{index}_history.jsonl"


def _write(
    run: Run, result: CrossValidation, *, base: DocumentLosses, last: DocumentLosses
) -> None:
    run.write_json("cross_validation.json", result.curve.to_json())
    run.save_losses("base", "out_of_fold", base)
    if "base model" not in {check["name"] for check in run.read_json("checks.json")}:
        level = f"{base.nats_per_token:.3f} nats/token"
        check = {"name": "base model", "status": "ok", "message": level}
        run.write_json("checks.json", [*run.read_json("checks.json"), check])
    run.save_losses("best", "out_of_fold", result.out_of_fold)
    run.save_losses("last", "out_of_fold", last)
