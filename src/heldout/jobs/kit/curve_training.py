"""One training of a learning curve: a part of the rows, measured at its best epoch."""

# T measurings, D held-out documents, G groups

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from heldout.core.interrupt import StopRequest
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation
from heldout.core.results.learning_curve import CurvePoint
from heldout.core.run import Run
from heldout.jobs.kit.condition import Condition, Trained
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.hand_on import begin_with_trial
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.side_by_side import Task


@dataclass(frozen=True)
class CurvePart:
    """A share of the training rows, drawn by a seed: positions of its rows, and their tokens."""

    fraction: float
    seed: int
    positions: Sequence[int]
    num_tokens: int

    @property
    def name(self) -> str:
        return f"{self.fraction:.6g}_seed_{self.seed}"

    @property
    def words(self) -> str:
        return f"{self.fraction:.3g} of the data, seed={self.seed}"

    @property
    def history_name(self) -> str:
        return f"{self.name}_history.jsonl"


def trained_parts(
    context: RunContext, parts: Sequence[CurvePart], learning_rate: float
) -> list[tuple[CurvePoint, DocumentLosses]]:
    """Train on each part, side by side, unless an earlier call did; ``curve.json`` holds all.

    The context holds the whole recipe and all rows, which are those of its run.
    """
    run = context.run
    with context.side_by_side() as beside:
        for part in parts:
            if _recorded(run, part) is None:
                arguments = {
                    "known": context.told,
                    "part": {**asdict(part), "positions": list(part.positions)},
                    "learning_rate": learning_rate,
                }
                beside.add(Task(part.words, train_part, arguments))
    found = []
    for part in parts:
        recorded = _recorded(run, part)
        assert recorded is not None, "trained just now"
        found.append(recorded)
    about = run.read_json("curve.json")
    run.write_json("curve.json", {**about, "points": [asdict(point) for point, _ in found]})
    return found


def _recorded(run: Run, part: CurvePart) -> tuple[CurvePoint, DocumentLosses] | None:
    """What was found on the part, now or by an earlier call."""
    known = run.losses(part.name, "validation")
    if known is None:
        return None
    if run.path(_point_name(part)).exists():
        return CurvePoint(**run.read_json(_point_name(part))), known
    for entry in run.read_json("curve.json")["points"]:
        if (entry["fraction"], entry["seed"]) == (part.fraction, part.seed):
            return CurvePoint(**entry), known
    return None


def train_part(
    progress: Progress,
    request: StopRequest,
    *,
    known: dict[str, Any],
    part: dict[str, Any],
    learning_rate: float,
) -> None:
    """Train on the part of a run's rows, and record its point and losses in files of its own."""
    _train_part(RunContext.of_run(known, progress, request), CurvePart(**part), learning_rate)


def _train_part(context: RunContext, part: CurvePart, learning_rate: float) -> None:
    run = context.run
    rows = [context.texts.train[position] for position in part.positions]
    recipe = _recipe_of_part(context.recipe, part)
    # The loss on training rows is not looked at.
    texts = Texts(rows, context.texts.validation, rows[:2])
    condition = Condition(
        replace(context, recipe=recipe, texts=texts),
        learning_rate,
        recipe.train.max_epochs,
        history_name=part.history_name,
        folder=f"checkpoints/{part.name}",
        keep_best=False,
    )
    if len(rows) == len(context.texts.train):  # in their own order, as the rate was searched on
        begin_with_trial(condition)
    trained = condition.train(part.words)
    context.check_interrupt(trained.outcome.interrupted)
    losses = cross_chosen(trained.evaluations, context.recipe.data.seed)
    point = _point(part, trained, losses)
    run.write_json(_point_name(part), asdict(point))
    run.save_losses(part.name, "validation", losses)
    shutil.rmtree(run.path(condition.folder), ignore_errors=True)


def _point_name(part: CurvePart) -> str:
    return f"{part.name}_point.json"


def _recipe_of_part(recipe: Recipe, part: CurvePart) -> Recipe:
    """Fewer rows are gone through more often, and measured less often for each of their epochs."""
    finer = math.sqrt(part.fraction)
    return recipe.replace(
        train={
            "seed": (recipe.train.seed + part.seed) % 2**32,
            "max_epochs": recipe.train.max_epochs / finer,
            "report_to": (),
        },
        eval={"per_epoch": recipe.eval.per_epoch * finer},
    )


def _point(part: CurvePart, trained: Trained, losses: DocumentLosses) -> CurvePoint:
    evaluations = trained.evaluations
    best = min(evaluations, key=lambda each: each.validation.nats_per_token)
    return CurvePoint(
        part.fraction,
        part.seed,
        len(part.positions),
        part.num_tokens,
        losses.nats_per_token,
        best.epoch,
        evaluations[-1].epoch,
        len(evaluations),
    )


def cross_chosen(evaluations: Sequence[Evaluation], seed: int) -> DocumentLosses:
    """Each half of the groups where, and by which weights, the other half's loss is lowest."""
    measured = [found for each in evaluations for found in each.by_weights.values()]
    nll_TD = np.stack([found.nll_nats_D for found in measured])
    first = evaluations[0].validation
    names, group_D = np.unique(first.groups_D, return_inverse=True)
    half_G = np.zeros(len(names), bool)
    half_G[np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]] = True
    in_half_D = half_G[group_D]
    nll_D = np.empty(nll_TD.shape[1])
    for half_D in (in_half_D, ~in_half_D):
        nll_D[half_D] = nll_TD[np.argmin(nll_TD[:, ~half_D].sum(1))][half_D]
    return DocumentLosses(nll_D, first.num_tokens_D, first.num_bytes_D, first.groups_D)
