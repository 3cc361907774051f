"""What a model is asked about rows that were looked through: read them, train on them, judge."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.check import Lengths, Problem
from heldout.core.results.label_noise import LabelNoise
from heldout.core.results.learning_curve import LearningCurve
from heldout.core.row import Row
from heldout.data.index import Index
from heldout.data.pairs import Components
from heldout.data.stream import RowStream
from heldout.jobs.checking.lengths import lengths_of
from heldout.jobs.checking.options import BY_A_MODEL, ModelQuestions
from heldout.jobs.checking.sources import Sources

if TYPE_CHECKING:
    from heldout.jobs.checking.with_model import RowSample, SeenByModel


@dataclass
class ModelAnswers:
    """What the model told; ``suspects`` are positions in the index with a reason each."""

    measurements: list[Measurement | NotMeasured] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lengths: list[Lengths] = field(default_factory=list)
    suspects: list[tuple[int, str]] = field(default_factory=list)
    label_noise: LabelNoise | None = None
    learning_curve: LearningCurve | None = None


def ask_model(
    questions: ModelQuestions, sources: Sources, index: Index, recipe: Recipe, progress: Progress
) -> ModelAnswers:
    """Reads a sample of the training rows; trains only where that is asked for."""
    if not questions.model:
        reason = "no model was given: --model"
        return ModelAnswers([NotMeasured(name, reason) for name in BY_A_MODEL])
    from heldout.jobs.checking.with_model import RowSample, measure_with_model

    sample = RowSample(
        sources.streams[0][1],
        _sampled_positions(index, questions.max_rows),
        len(np.unique(index.label_R[index.part_R == 0])),
    )
    reference = RowStream(questions.reference) if questions.reference else None
    seen = measure_with_model(
        questions.model, sample, reference, questions.max_rows, recipe, progress
    )
    answers = ModelAnswers(
        seen.measurements,
        seen.warnings,
        seen.problems,
        [] if seen.tokens is None else [lengths_of("train", "tokens", seen.tokens)],
        list(seen.far_off.items()),
    )
    if questions.num_folds:
        _add_label_noise(answers, questions, index, sample, seen, recipe, progress)
    if questions.learning_curve:
        _add_learning_curve(answers, questions.model, sources, recipe, progress)
    return answers


def _sampled_positions(index: Index, most: int) -> dict[int, int]:
    """By their number in the source: different training rows, those of the least hashes."""
    own = (index.part_R == 0) & (index.first_R == np.arange(len(index)))
    positions = np.flatnonzero(own)
    sample = positions[np.sort(np.argsort(index.key_R[positions], kind="stable")[:most])]
    return {int(index.index_R[position]): int(position) for position in sample}


def _add_label_noise(
    answers: ModelAnswers,
    questions: ModelQuestions,
    index: Index,
    sample: "RowSample",
    seen: "SeenByModel",
    recipe: Recipe,
    progress: Progress,
) -> None:
    from heldout.jobs.checking.label_noise import label_noise

    rows = _in_components(seen.rows, index, sample)
    try:
        answers.label_noise, far_off = label_noise(
            questions.model,
            rows,
            recipe.replace(data={"max_length": seen.max_length}),
            num_folds=questions.num_folds,
            num_parameters=seen.num_parameters,
            where={row.index: index.where(sample.position_of[row.index]) for row in rows},
            progress=progress,
        )
    except UserError as error:
        answers.measurements.append(NotMeasured("doubtful_answers", str(error).rstrip(".")))
        return
    answers.suspects += [(sample.position_of[row], reason) for row, reason in far_off.items()]


def _in_components(rows: list[Row], index: Index, sample: "RowSample") -> list[Row]:
    """The rows with Row.group for what must not straddle folds: their groups and duplicates."""
    together = Components(len(rows))
    first: dict[tuple[str, int], int] = {}
    for place, row in enumerate(rows):
        position = sample.position_of[row.index]
        group = int(index.group_R[position])
        names = [("label", int(index.label_R[position]))]
        for name in [*names, ("group", group)] if group else names:
            together.join(first.setdefault(name, place), place)
    labels = together.label.tolist()
    return [replace(row, group=str(label)) for row, label in zip(rows, labels, strict=True)]


def _add_learning_curve(
    answers: ModelAnswers, model: str, sources: Sources, recipe: Recipe, progress: Progress
) -> None:
    """One held-out file measures all sizes; otherwise a validation part is split off."""
    from heldout.jobs.kit.learning_curve import learning_curve
    from heldout.jobs.kit.parts import read_parts

    given: dict[str, Any] = {"test_share": 0.0}
    if len(sources.given) == 1:
        given["validation"] = sources.given[0]
    chosen = recipe.replace(data=given)
    try:
        parts = read_parts(sources.data, chosen)
        answers.learning_curve = learning_curve(model, parts, chosen, progress=progress)
    except UserError as error:
        answers.measurements.append(NotMeasured("learning_curve", str(error).rstrip(".")))
