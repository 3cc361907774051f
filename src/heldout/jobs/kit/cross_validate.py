"""Where held-out parts would be too small, folds tell the epoch to stop at, and the gain."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.run_files import FoldCurve, FoldPoint
from heldout.data.split import folds
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.target import Target


@dataclass(frozen=True)
class CrossValidation:
    """The mean curve over folds, its lowest point, and all rows' losses there, out of fold."""

    curve: FoldCurve
    best_epoch: float
    out_of_fold: DocumentLosses
    rows: list[Row]  # in the order of ``out_of_fold``


def cross_validate(
    run: Run,
    target: Target,
    recipe: Recipe,
    rows: list[Row],
    learning_rate: float,
    *,
    stop: Callable[[], bool],
    progress: Progress,
    check_interrupt: Callable[[bool], None],
) -> CrossValidation:
    """Train once per fold on the other folds; every group is held out once.

    The first fold ends by the recipe's own early stopping; the others run as long, so that one
    curve over the same epochs can be averaged. Costs ``eval.folds`` trainings of that length.
    """
    parts = folds(rows, recipe.eval.folds, recipe.data.seed)
    horizon = recipe.train.max_epochs
    evaluations = []
    for index, fold in enumerate(parts):
        shorter = recipe
        if index:
            shorter = replace(
                recipe,
                regularizers={
                    name: parameters
                    for name, parameters in recipe.regularizers.items()
                    if name != "early_stopping"
                },
            )
        condition = Condition(
            run,
            target,
            shorter,
            Texts(fold.train, fold.held_out, fold.train[: recipe.eval.max_train_rows]),
            learning_rate,
            horizon,
            history_name=f"fold_{index}_history.jsonl",
            folder=f"checkpoints/fold_{index}",
            keep_best=False,
        )
        trained = condition.train(
            stop=stop, progress=progress, name=f"fold {index + 1} of {len(parts)}"
        )
        check_interrupt(trained.outcome.interrupted)
        evaluations.append(trained.evaluations)
        if index == 0:
            horizon = max(trained.outcome.epoch, trained.evaluations[-1].epoch)
    common = min(len(found) for found in evaluations)
    pooled = [
        DocumentLosses.concatenate([found[point].validation for found in evaluations])
        for point in range(common)
    ]
    curve: list[FoldPoint] = []
    for point, losses in enumerate(pooled):
        level, epoch = losses.estimate(), evaluations[0][point].epoch
        curve.append(FoldPoint(epoch, level.value, level.interval.low, level.interval.high))
    best = min(range(common), key=lambda point: curve[point].validation_nll)
    ordered = [row for fold in parts for row in fold.held_out]
    best_epoch = curve[best].epoch
    found_curve = FoldCurve(len(parts), tuple(curve), best_epoch)
    run.write_json("cross_validation.json", found_curve.to_json())
    run.save_losses("base", "out_of_fold", pooled[0])
    if "base model" not in {check["name"] for check in run.read_json("checks.json")}:
        found_level = pooled[0].nats_per_token
        check = {"name": "base model", "status": "ok", "message": f"{found_level:.3f} nats/token"}
        run.write_json("checks.json", [*run.read_json("checks.json"), check])
    run.save_losses("best", "out_of_fold", pooled[best])
    run.save_losses("last", "out_of_fold", pooled[-1])
    return CrossValidation(found_curve, best_epoch, pooled[best], ordered)
