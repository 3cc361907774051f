"""Is this data fit to train on? Duplicates, leaks, faults, personal data, size and information.

Three jobs: look through the rows, ask a model about them, write a clean copy. The texts are read
as a stream and indexed in a temporary folder; see data/build_index.py for what that takes in
memory and on disk.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.lock import scratch_folder
from heldout.core.progress import Progress, told
from heldout.core.recipe import DataSection, Recipe, load_recipe
from heldout.core.results.check import CheckResult
from heldout.data.layout import holds_split
from heldout.data.pairs import Engine, Here
from heldout.jobs.checking.clean import write_clean_copy
from heldout.jobs.checking.findings import look_through
from heldout.jobs.checking.model_questions import ask_model
from heldout.jobs.checking.options import CopyWanted, ModelQuestions, RowsToCheck, refuse_unfit
from heldout.jobs.checking.sources import OWN_PARTS, Sources
from heldout.jobs.kit.given_data import DataSource, DataSources, given_data, given_sources
from heldout.jobs.kit.given_model import ModelSource, given_model
from heldout.jobs.kit.page_folder import write_page_folder


def check(
    data: DataSource,
    *,
    heldout: DataSources = (),
    against: DataSources = (),
    semantic: str = "",
    model: ModelSource = "",
    reference: DataSource = "",
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
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Look through ``data``, and compare it with held-out rows and named test sets.

    data: what ``fit`` takes, a path or rows as objects; ``model`` and ``tokenizer`` likewise.
    heldout: rows that must not appear in ``data``: a path, rows as objects, or several of these in
    a list or a dict; they are one part, with the held-out parts of a split that ``data`` holds.
    against: evaluation sets, for contamination: names, paths and objects, likewise; an object goes
    by its place, such as ``against['exam']`` of ``against={"exam": rows}``.
    semantic: a sentence encoder, to find leaks in other words as well. See data/paraphrases.py.
    model: measures information in bits, label noise and tokens on ``model_rows`` rows; with
    ``reference``, a text of the model's own domain, how far the data lies from it.
    cross_validate: with a model, into how many folds to divide these rows, to fine-tune it briefly
    without each and to tell which answers it doubts; 0: not at all. See checking/label_noise.py.
    learning_curve: with a model, whether twice the data would help; trains a dozen times. See
    kit/learning_curve.py.
    recipe, settings: data.columns, data.group, data.near_duplicate_threshold, shares and seed; of
    the trainings, all that they take.
    write_clean: a new folder for rows without duplicates in parts without leaks, with a manifest.
    out: a new folder for report.html and check.json.

    Nothing of the user's is changed. Raises UserError for what cannot be read at all.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    copy = CopyWanted(None if write_clean is None else Path(write_clean), plant_canaries)
    folder = None if out is None else Path(out)
    with (
        given_data(data) as given,
        given_sources(heldout, "heldout") as unseen,
        given_sources(against, "against") as tests,
        given_data(reference, "reference") as domain,
        given_model(model, tokenizer) as asked,
    ):
        sources = (tuple(each.path for each in unseen), tuple(each.path for each in tests))
        rows = RowsToCheck(given.path, *sources, chosen, max_listed, engine, semantic)
        questions = ModelQuestions(
            asked.name, domain.path, model_rows, cross_validate, learning_curve
        )
        refuse_unfit(rows, questions, copy, folder)
        result = asked.renamed(_check(rows, questions, copy, told(progress)))
        for each in (given, *unseen, *tests, domain):
            result = each.renamed(result)
    if folder is not None:
        try:
            _write(result, folder)
        except BaseException:  # a full disk: the same command must find nothing in its way
            if copy.folder is not None:
                shutil.rmtree(copy.folder, ignore_errors=True)
            raise
    return result


def brings_heldout(data: str | Path) -> bool:
    """Whether the data holds a split, whose held-out parts are then compared with training."""
    return holds_split(data, DataSection())


def _check(
    rows: RowsToCheck, questions: ModelQuestions, copy: CopyWanted, progress: Progress
) -> CheckResult:
    """The three jobs, one after the other, on one index of the rows."""
    start = time.monotonic()
    sources = Sources.open(rows)
    engine = _engine(rows.engine)
    with scratch_folder("heldout-check-") as folder:
        found = look_through(sources, rows, folder, engine, progress, to_deal=_deals(rows, copy))
        answers = ask_model(questions, sources, found.index, rows.recipe, progress)
        written = None
        if copy.folder is not None:
            with progress.stage("writing the clean copy"):
                own = [each for each in sources.streams if each[0] in OWN_PARTS]
                written = write_clean_copy(
                    copy.folder, found.index, own, rows.recipe.data, copy.num_canaries
                )
        found.add_answers(answers)
        return found.result(rows.recipe, answers, written, time.monotonic() - start)


def _deals(rows: RowsToCheck, copy: CopyWanted) -> bool:
    """Whether the training rows are dealt out to parts, so that pairs among them matter."""
    return copy.folder is not None and not rows.heldout


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
