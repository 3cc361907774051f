"""One training of a learning curve: a part of the rows, measured at its best epoch."""

# T evaluations, D held-out documents, G groups

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation
from heldout.core.results.learning_curve import CurvePoint
from heldout.jobs.kit.condition import Condition, Trained
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import Texts


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


def train_part(
    context: RunContext, part: CurvePart, learning_rate: float
) -> tuple[CurvePoint, DocumentLosses]:
    """Train on the part and record it, or read what an earlier call found.

    The context holds the whole recipe and all rows.
    """
    run = context.run
    for entry in run.read_json("curve.json")["points"]:
        known = run.losses(part.name, "validation")
        if (entry["fraction"], entry["seed"]) == (part.fraction, part.seed) and known is not None:
            return CurvePoint(**entry), known
    rows = [context.texts.train[position] for position in part.positions]
    recipe = _recipe_of_part(context.recipe, part)
    # The loss on training rows is not looked at.
    texts = Texts(rows, context.texts.validation, rows[:2])
    condition = Condition(
        replace(context, recipe=recipe, texts=texts),
        learning_rate,
        recipe.train.max_epochs,
        history_name=f"{part.name}_history.jsonl",
        folder=f"checkpoints/{part.name}",
        keep_best=False,
    )
    trained = condition.train(f"{part.fraction:.3g} of the data, seed={part.seed}")
    context.check_interrupt(trained.outcome.interrupted)
    losses = cross_chosen(trained.evaluations, context.recipe.data.seed)
    point = _point(part, trained, losses)
    run.save_losses("base", "validation", trained.evaluations[0].validation)
    run.save_losses(part.name, "validation", losses)
    about = run.read_json("curve.json")
    run.write_json("curve.json", {**about, "points": [*about["points"], asdict(point)]})
    shutil.rmtree(run.path(condition.folder), ignore_errors=True)
    return point, losses


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
    """Each half of the groups at the evaluation of the other half's lowest loss."""
    nll_TD = np.stack([each.validation.nll_nats_D for each in evaluations])
    first = evaluations[0].validation
    names, group_D = np.unique(first.groups_D, return_inverse=True)
    half_G = np.zeros(len(names), bool)
    half_G[np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]] = True
    in_half_D = half_G[group_D]
    nll_D = np.empty(nll_TD.shape[1])
    for half_D in (in_half_D, ~in_half_D):
        nll_D[half_D] = nll_TD[np.argmin(nll_TD[:, ~half_D].sum(1))][half_D]
    return DocumentLosses(nll_D, first.num_tokens_D, first.num_bytes_D, first.groups_D)
