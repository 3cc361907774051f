"""A diagnosis of a model on the texts that were given, or on those of its run."""

from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import Diagnosis
from heldout.data.layout import holds_split
from heldout.jobs.diagnosing.find_target import DiagnosedTarget
from heldout.jobs.diagnosing.from_model import diagnosis_of_model
from heldout.jobs.diagnosing.text_sources import TextSources
from heldout.jobs.evidence.gatherer import Asked
from heldout.jobs.evidence.texts import DiagnosedTexts, texts_of_files, texts_of_run
from heldout.lm.quiet import quiet_libraries


def diagnosis_with_texts(
    found: DiagnosedTarget,
    known: Facts,
    sources: TextSources,
    recipe: Recipe,
    asked: Asked,
    progress: Progress,
) -> Diagnosis:
    """Read the rows, and measure the model that was found on them.

    Raises UserError where training or unseen rows are neither given nor known.
    """
    with quiet_libraries():
        texts = _texts(found, sources, recipe, progress)
        return diagnosis_of_model(found, known, texts, recipe, asked, progress)


def _texts(
    found: DiagnosedTarget, sources: TextSources, recipe: Recipe, progress: Progress
) -> DiagnosedTexts:
    train, heldout = sources.train, sources.heldout
    domains, most = sources.domains, sources.most_rows
    if train and (heldout or holds_split(train, recipe.data)):
        return texts_of_files(train, heldout, domains, recipe, most, progress)
    if found.run is not None and not train:
        return texts_of_run(found.run, heldout, domains, recipe, most, sources.open_test)
    missing = "--train" if heldout else "--heldout" if train else "--train and --heldout"
    here = "" if Path(found.model).exists() else f"{found.model}: no such run or folder here. "
    raise UserError(
        f"{here}Of a model without a run {missing} must be given, the rows that it was trained on "
        "and rows that it has not seen; without the latter nothing tells learning from reciting."
    )
