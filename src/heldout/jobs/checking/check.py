"""Is this data fit to train on? Duplicates, leaks, faults, personal data, size and information.

The texts are read as a stream and indexed in a temporary folder; see data/index.py for what that
takes in memory and on disk.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from heldout.core.errors import UserError
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.results.check import (
    CheckResult,
)
from heldout.data.index import Index, build_index
from heldout.data.pairs import Components, Engine, Here
from heldout.data.stream import RowStream, nothing_to_train_on
from heldout.jobs.checking.clean import refuse_occupied, write_clean_copy
from heldout.jobs.checking.findings import Findings, lengths_of
from heldout.jobs.checking.sources import OWN_PARTS, SourcePass, Sources
from heldout.jobs.kit.page_folder import write_page_folder

if TYPE_CHECKING:
    from heldout.jobs.checking.with_model import SeenByModel


def check(
    data: str | Path,
    *,
    heldout: Sequence[str | Path] = (),
    against: Sequence[str | Path] = (),
    model: str = "",
    reference: str | Path = "",
    model_rows: int = 1000,
    cross_validate: int = 0,
    learning_curve: bool = False,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    write_clean: str | Path | None = None,
    plant_canaries: int = 0,
    out: str | Path | None = None,
    max_listed: int = 10_000,
    engine: Literal["local", "ray"] = "local",
    progress: Progress | None = None,
) -> CheckResult:
    """Look through ``data``, and compare it with held-out rows and named test sets.

    heldout: files whose rows must not stand in ``data``; they are one part.
    against: evaluation sets, each by its name, for contamination.
    model: measures information in bits, label noise and tokens on ``model_rows`` rows; with
    ``reference``, a text of the model's own domain, how far the data lies from it.
    cross_validate: with a model, into how many folds to divide these rows, to fine-tune it briefly
    without each and to tell which answers it doubts; 0: not at all. See jobs/label_noise.py.
    learning_curve: with a model, whether twice the data would help; trains a dozen times. See
    jobs/learning_curve.py.
    recipe, settings: data.columns, data.group, data.near_duplicate_threshold, shares and seed; of
    the trainings, all that they take.
    write_clean: a new folder for rows without duplicates in parts without leaks, with a manifest.
    out: a new folder for report.html and check.json.

    Nothing of the user's is changed. Raises UserError for what cannot be read at all.
    """
    start = time.monotonic()
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    if plant_canaries and write_clean is None:
        raise UserError("--plant-canaries needs --write-clean DIR: canaries go into a copy.")
    if plant_canaries < 0 or max_listed < 1 or model_rows < 2:
        raise UserError(
            "--plant-canaries must be 0 or more, --list 1 or more and --model-rows 2 or more, got "
            f"{plant_canaries}, {max_listed} and {model_rows}."
        )
    asked = {
        "--reference": reference,
        "--cross-validate": cross_validate,
        "--learning-curve": learning_curve,
    }
    for name, value in asked.items():
        if value and not model:
            raise UserError(f"{name} is measured with a model: give --model too.")
    if cross_validate and cross_validate < 2:
        raise UserError(f"--cross-validate must be 2 folds or more, got {cross_validate}.")
    for folder in (out, write_clean):
        if folder is not None:
            refuse_occupied(Path(folder))
    progress = progress or Progress()
    sources = Sources.open(data, heldout, against, chosen)
    runner = _engine(engine)
    with tempfile.TemporaryDirectory(prefix="heldout-check-") as folder:
        read = SourcePass(sources, max_listed)
        index = build_index(
            read.rows(),
            Path(folder),
            threshold=chosen.data.near_duplicate_threshold,
            engine=runner,
            progress=progress,
        )
        if not (index.part_R == 0).any():
            first = read.problems[0]
            raise nothing_to_train_on(
                str(data), read.rows_by_part["train"], first.where, first.message
            )
        found = Findings(sources, read, index, max_listed)
        with progress.stage("what the rows tell"):
            found.collect()
        measured = _measure(
            sources, index, chosen, model, reference, model_rows, cross_validate, progress, found
        )
        if learning_curve:
            measured += _learning_curve(sources, chosen, model, progress, found)
        written = ""
        if write_clean is not None:
            with progress.stage("writing the clean copy"):
                copied = write_clean_copy(
                    Path(write_clean),
                    index,
                    [each for each in sources.streams if each[0] in OWN_PARTS],
                    chosen.data,
                    plant_canaries,
                )
            written = str(copied.folder)
            found.warnings += copied.notes
        result = found.result(chosen, measured, written, time.monotonic() - start)
    if out is not None:
        _write(result, Path(out))
    return result


def _write(result: CheckResult, folder: Path) -> None:
    from heldout.report.check_page import write_check

    write_page_folder(
        folder, "check.json", result.to_json(), lambda path: write_check(result, path)
    )


def _engine(name: str) -> Engine:
    if name == "local":
        return Here()
    if name == "ray":
        from heldout.jobs.checking.ray_engine import RayEngine

        return RayEngine()
    raise UserError(f"--engine must be local or ray, got {name!r}.")


# With a model


def _measure(
    sources: Sources,
    index: Index,
    recipe: Recipe,
    model: str,
    reference: str | Path,
    model_rows: int,
    cross_validate: int,
    progress: Progress,
    found: Findings,
) -> list[Measurement | NotMeasured]:
    if not model:
        reason = "no model was given: --model"
        return [
            NotMeasured(name, reason)
            for name in ("bits_per_byte", "information_bits", "domain_distance")
        ]
    from heldout.jobs.checking.with_model import measure_with_model

    own = (index.part_R == 0) & (index.first_R == np.arange(len(index)))
    positions = np.flatnonzero(own)
    sample = positions[np.sort(np.argsort(index.key_R[positions], kind="stable")[:model_rows])]
    position_of = {int(index.index_R[position]): int(position) for position in sample}
    seen = measure_with_model(
        model,
        sources.streams[0][1],
        position_of,
        RowStream(reference) if reference else None,
        recipe,
        model_rows,
        len(np.unique(index.label_R[index.part_R == 0])),
        progress,
    )
    found.warnings += seen.warnings
    if seen.tokens is not None:
        found.lengths.append(lengths_of("train", "tokens", seen.tokens))
    for position, reason in seen.far_off.items():
        found.suspects.setdefault(position, []).append(reason)
    for problem in seen.problems:
        found.reading.add(problem)
    if cross_validate:
        return seen.measurements + _label_noise(
            index, seen, position_of, recipe, model, cross_validate, progress, found
        )
    return seen.measurements


def _label_noise(
    index: Index,
    seen: "SeenByModel",
    position_of: dict[int, int],
    recipe: Recipe,
    model: str,
    num_folds: int,
    progress: Progress,
    found: Findings,
) -> list[Measurement | NotMeasured]:
    """What could not be measured; the rest is put into ``found``."""
    from heldout.jobs.checking.label_noise import label_noise

    positions = [position_of[row.index] for row in seen.rows]
    together = Components(len(positions))
    first: dict[tuple[str, int], int] = {}
    for place, position in enumerate(positions):
        group = int(index.group_R[position])
        names = [("duplicates of", int(index.label_R[position]))]
        for name in [*names, ("group", group)] if group else names:
            together.join(first.setdefault(name, place), place)
    rows = [
        replace(row, group=str(label))
        for row, label in zip(seen.rows, together.label.tolist(), strict=True)
    ]
    try:
        found.label_noise, far_off = label_noise(
            model,
            rows,
            recipe.replace(data={"max_length": seen.max_length}),
            num_folds=num_folds,
            num_parameters=seen.num_parameters,
            where={row.index: index.where(position_of[row.index]) for row in rows},
            progress=progress,
        )
    except UserError as error:
        return [NotMeasured("doubtful_answers", str(error).rstrip("."))]
    for row, reason in far_off.items():
        found.suspects.setdefault(position_of[row], []).append(reason)
    found.counts["doubtful_answers"] = len(found.label_noise.doubtful)
    return []


def _learning_curve(
    sources: Sources, recipe: Recipe, model: str, progress: Progress, found: Findings
) -> list[Measurement | NotMeasured]:
    """What could not be measured; the curve is put into ``found``.

    One held-out file measures all sizes; otherwise a validation part is split off.
    """
    from heldout.jobs.kit.learning_curve import learning_curve
    from heldout.jobs.kit.parts import read_parts

    given: dict[str, Any] = {"test_share": 0.0}
    if len(sources.heldout) == 1:
        given["validation"] = sources.heldout[0]
    chosen = recipe.replace(data=given)
    try:
        parts = read_parts(sources.data, chosen)
        found.learning_curve = learning_curve(model, parts, chosen, progress=progress)
    except UserError as error:
        return [NotMeasured("learning_curve", str(error).rstrip("."))]
    return []
