"""Evidence for the probes that are asked for, and what the page shows beside it."""

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, field

from heldout.core.facts import SetupFault
from heldout.core.landscape import LossLandscape
from heldout.core.part_texts import PartTexts
from heldout.core.probe import Evidence
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import MemorizedRow, SideBySide
from heldout.core.row import Row
from heldout.core.verbatim import Corpora
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given, gatherers_for
from heldout.jobs.evidence.kept import Kept
from heldout.jobs.evidence.model_on_part import max_length_of
from heldout.jobs.evidence.shown import memorized_rows, reliability, samples_of
from heldout.jobs.evidence.texts import DiagnosedTexts
from heldout.lm.characters import token_size
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.setup_faults.find import find_setup_faults
from heldout.lm.tokenize import tokenize_row

NUM_COMPARED = 16  # rows that tell whether two tokenizers are one


@dataclass(frozen=True)
class Gathered:
    """Evidence, and what the page shows beside it."""

    evidence: Evidence
    checks: tuple[SetupFault, ...] = ()
    memorized: list[MemorizedRow] = field(default_factory=list)
    samples: list[SideBySide] = field(default_factory=list)
    reliability: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    update_norm: float | None = None
    warnings: list[str] = field(default_factory=list)


def gather(
    judged: LoadedModel,
    base: LoadedModel | None,
    texts: DiagnosedTexts,
    recipe: Recipe,
    asked: Asked,
    progress: Progress,
    kept: Kept | None = None,
) -> Gathered:
    """Gather all that is needed from both models, and look for faults of the setup.

    What is ``kept`` of a run is taken from it where it is the same. Raises UserError, before any
    model runs, for what cannot be gathered.
    """
    gatherers = gatherers_for(asked)
    warnings: list[str] = []
    control = base
    if base is not None and not _same_tokens(judged, base, texts.train):
        control = None
        warnings.append(
            "The base model's tokenizer splits the rows otherwise: it is no control, and nothing "
            "is compared with it. Is it the model that training began with?"
        )
    models = {"base": control, "best": judged} if control else {"best": judged}
    size = token_size(judged.tokenizer, texts.train)
    if size.warning:
        warnings.append(size.warning)
    given = Given(models, texts, recipe, progress, size, kept or Kept())
    parts = {"train": PartTexts.of(texts.train), "test": PartTexts.of(texts.heldout)}
    evidence = _collected(gatherers, Evidence({}, texts=parts).adding(size), given)
    with progress.stage("set-up"):
        checks = find_setup_faults(
            judged.model,
            base.model if base else None,
            judged.tokenizer,
            base.tokenizer if base else None,
            texts.train,
            texts.heldout,
            max_length=max_length_of(judged, recipe),
            batch_size=recipe.eval.batch_size,
            labels_known=texts.labels_known,
            prompts_meant=texts.prompts_meant,
        )
    of_test = {name: reliability(evidence.statistics[name, "test"]) for name in models}
    return Gathered(
        evidence,
        checks=tuple(checks),
        memorized=memorized_rows(evidence.statistics["best", "train"], texts, judged.tokenizer),
        samples=samples_of(evidence.generations, evidence.get(Corpora), judged.tokenizer, size),
        reliability={name: points for name, points in of_test.items() if points},
        warnings=warnings,
        update_norm=_update_norm(evidence.get(LossLandscape)),
    )


def _collected(gatherers: list[Gatherer], evidence: Evidence, given: Given) -> Evidence:
    """Stage by stage: each model in turn, then what is gathered of all of them."""
    for stage, of_stage in itertools.groupby(gatherers, key=lambda each: each.stage):
        members = list(of_stage)
        total = sum(each.num_steps(given) for each in members) or None
        with given.progress.stage(stage, total) if stage else nullcontext():
            for name in given.models:
                for each in members:
                    evidence = each.of_model(name, evidence, given)
            for each in members:
                evidence = each.of_all(evidence, given)
    return evidence


def _update_norm(around: LossLandscape | None) -> float | None:
    return around.update_norms["all"] if around and around.update_norms else None


def _same_tokens(judged: LoadedModel, base: LoadedModel, rows: list[Row]) -> bool:
    """Whether both tokenizers split some of the rows alike."""
    return all(_ids(row, judged) == _ids(row, base) for row in rows[:NUM_COMPARED])


def _ids(row: Row, loaded: LoadedModel) -> list[int]:
    windows = tokenize_row(row, loaded.tokenizer, 1 << 30).windows
    return [token for window in windows for token in window.input_ids]
