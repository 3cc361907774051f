"""What training on data tells of it, asked alone: answers in doubt, and whether more would help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.measurement import NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.check import CheckResult
from heldout.core.results.label_noise import LabelNoise
from heldout.core.results.learning_curve import LearningCurve
from heldout.jobs.checking.check import check
from heldout.jobs.kit.chosen_recipe import chosen_recipe
from heldout.jobs.kit.given_data import DataSource, given_data
from heldout.jobs.kit.given_model import ModelSource, given_model
from heldout.jobs.kit.learning_curve import learning_curve as curve_of
from heldout.jobs.kit.parts import read_parts


def label_noise(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    folds: int = 5,
    most_rows: int = 1000,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    progress: Progress | None = None,
) -> LabelNoise:
    """Which answers of ``data`` the model doubts after it was trained briefly without them.

    The part of ``check(data, model=model, cross_validate=folds)`` that this is about. Costs
    ``folds`` trainings of 3 epochs and 10 passes over the rows.
    Raises UserError where the rows cannot be divided or a training diverges, Interrupted on Ctrl-C.
    """
    found = check(
        data,
        model=model,
        model_rows=most_rows,
        cross_validate=folds,
        recipe=recipe,
        settings=settings,
        tokenizer=tokenizer,
        progress=progress,
    )
    if found.label_noise is None:
        raise _refusal(found)
    return found.label_noise


def learning_curve(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> LearningCurve:
    """Held-out loss over nested parts of ``data``, and what twice and four times as much brings.

    The validation part measures all sizes. Costs about six trainings on all rows. ``out``: a folder
    that keeps finished trainings, from which the same call goes on.
    Raises UserError for what cannot work, Interrupted on Ctrl-C.
    """
    chosen = chosen_recipe(recipe, settings).replace(data={"test_share": 0.0})
    with given_data(data) as rows, given_model(model, tokenizer) as given:
        parts = rows.renamed(read_parts(rows.path, chosen))
        return curve_of(given.name, parts, chosen, folder=out, progress=progress)


def _refusal(found: CheckResult) -> UserError:
    told = [
        each.reason
        for each in found.measurements
        if isinstance(each, NotMeasured) and each.name == "doubtful_answers"
    ]
    return UserError(f"label_noise: {told[0] if told else 'too few rows could be read'}.")
