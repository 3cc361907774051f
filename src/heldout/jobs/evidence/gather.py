"""What probes need: one pass over each text per model, and one batch of continuations."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.facts import SetupFault
from heldout.core.harness import HarnessScores
from heldout.core.losses import DocumentLosses
from heldout.core.part_texts import PartTexts
from heldout.core.pass_statistics import Generations, PassStatistics, PersonalData
from heldout.core.probe import Evidence, VerbatimMemorization
from heldout.core.progress import Progress
from heldout.core.prompt_pairs import PromptPairs
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import MemorizedRow, SideBySide
from heldout.core.row import Row
from heldout.core.verbatim import Corpora
from heldout.data.canaries import Canary, canary_losses, candidate_rows
from heldout.data.quality import examine
from heldout.jobs.evidence.texts import DiagnosedTexts
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.corpora import corpora
from heldout.lm.measuring.generations import generations, with_nats
from heldout.lm.measuring.harness import Harness
from heldout.lm.measuring.landscape import landscape
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.measuring.prompt_pairs import prompt_pairs
from heldout.lm.measuring.setup_faults import setup_faults
from heldout.lm.nll import context_length, document_losses
from heldout.lm.tokenize import IGNORED, tokenize_row

NUM_PROMPTS = 64
NEW_TOKENS = 64
NUM_REWORDED = 24
NUM_COMPARED = 16  # rows that tell whether two tokenizers are one
NUM_AROUND = 32  # rows of each part that the landscape is looked at on
SHOWN_SAMPLES = 6
LEAST_COPY = 8  # tokens; what is shorter is said by everyone
SHOWN_RECITED = 200
RELIABILITY_BINS = 15


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    probes: list[str]
    generate: bool = True
    canaries: str = ""
    lexicon: str = ""
    tasks: tuple[str, ...] = ()  # of the lm-evaluation-harness
    include_path: str = ""  # folder of such tasks


@dataclass(frozen=True)
class Gathered:
    """Evidence, and what the page shows beside it."""

    evidence: Evidence
    checks: tuple[SetupFault, ...] = ()
    recited: list[MemorizedRow] = field(default_factory=list)
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
) -> Gathered:
    """Read every text with both models, let them write, and look at the set-up."""
    warnings: list[str] = []
    harness = Harness(asked.tasks, asked.include_path) if asked.tasks else None
    control = base
    if base is not None and not _same_tokens(judged, base, texts.train):
        control = None
        warnings.append(
            "The base model's tokenizer splits the rows otherwise: it is no control, and nothing "
            "is compared with it. Is it the model that training began with?"
        )
    models = {"base": control, "best": judged} if control else {"best": judged}
    parts = {"train": texts.train, "test": texts.heldout}
    parts |= {f"domain:{name}": rows for name, rows in texts.domains.items()}
    read: dict[tuple[str, str], PassStatistics] = {}
    with progress.stage("reading", len(models) * sum(map(len, parts.values()))):
        for name, loaded in models.items():
            for part, rows in parts.items():
                read[name, part] = read_part(loaded, rows, recipe, _advance(progress))
    written: dict[tuple[str, str], Generations] = {}
    pairs: dict[tuple[str, str], PromptPairs] = {}
    searched: Corpora | None = None
    if asked.generate:
        with progress.stage("writing", 2 * len(models) + 1):
            for name, loaded in models.items():
                written[name, "test"] = write_part(loaded, texts.heldout, recipe)
                progress.advance(1, name)
                pairs[name, "test"] = prompt_pairs(
                    loaded.model,
                    loaded.tokenizer,
                    texts.heldout,
                    num_prompts=NUM_REWORDED,
                    seed=recipe.data.seed,
                )
                progress.advance(1, name)
            searched = corpora(
                texts.all_train(), texts.heldout, judged.tokenizer, seed=recipe.data.seed
            )
            progress.advance(1, "searching")
        if control is not None:
            written = {
                key: with_nats(found, control.model, control.tokenizer)
                for key, found in written.items()
            }
    tasks: dict[tuple[str, str], HarnessScores] = {}
    if harness is not None:
        with progress.stage("tasks", len(models)):
            for name, loaded in models.items():
                found = harness.scores(loaded, batch_size=recipe.eval.batch_size)
                tasks |= {(name, task): scores for task, scores in found.items()}
                progress.advance(1, name)
    planted = read_canaries(asked.canaries) if asked.canaries else []
    evidence = Evidence(
        losses={key: found.losses for key, found in read.items()},
        memorization={key: verbatim_memorization(found) for key, found in read.items()},
        statistics=read,
        generations=written,
        prompt_pairs=pairs,
        texts={"train": PartTexts.of(texts.train), "test": PartTexts.of(texts.heldout)},
        corpora=searched,
        canaries={
            name: canary_losses(planted, _losses_of_candidates(loaded, planted, texts, recipe))
            for name, loaded in models.items()
            if planted
        },
        personal_data={
            part: personal_data(rows, read["best", part], judged.tokenizer)
            for part, rows in (("train", texts.train), ("test", texts.heldout))
        },
        tasks=tasks,
    )
    around = None
    if "landscape" in asked.probes:
        with progress.stage("landscape"):
            around = landscape(
                judged.model,
                control.model if control else None,
                judged.tokenizer,
                texts.train[:NUM_AROUND],
                texts.heldout[:NUM_AROUND],
                max_length=_max_length(judged, recipe),
                batch_size=recipe.eval.batch_size,
                seed=recipe.data.seed,
            )
    with progress.stage("set-up"):
        checks = setup_faults(
            judged.model,
            base.model if base else None,
            judged.tokenizer,
            base.tokenizer if base else None,
            texts.train,
            texts.heldout,
            max_length=_max_length(judged, recipe),
            batch_size=recipe.eval.batch_size,
        )
    return Gathered(
        replace(evidence, landscape=around),
        checks=tuple(checks),
        recited=memorized_rows(read["best", "train"], texts, judged),
        samples=samples_of(written, searched, judged.tokenizer),
        reliability={
            name: points for name in models if (points := reliability(read[name, "test"]))
        },
        warnings=warnings,
        update_norm=_total(around.update_norms if around else None),
    )


def _total(update_norms: dict[str, float] | None) -> float | None:
    return update_norms["all"] if update_norms else None


def _same_tokens(judged: LoadedModel, base: LoadedModel, rows: list[Row]) -> bool:
    """Whether both tokenizers split some of the rows alike."""
    return all(
        len({_ids(row, loaded.tokenizer) for loaded in (judged, base)}) == 1
        for row in rows[:NUM_COMPARED]
    )


def _ids(row: Row, tokenizer: Any) -> tuple[int, ...]:
    return tuple(
        id for window in tokenize_row(row, tokenizer, 1 << 30).windows for id in window.input_ids
    )


def read_part(
    loaded: LoadedModel,
    rows: list[Row],
    recipe: Recipe,
    advance: Callable[[int], None] | None = None,
) -> PassStatistics:
    """All that one pass tells, with the window and batch sizes of the recipe."""
    return pass_statistics(
        loaded.model,
        rows,
        loaded.tokenizer,
        max_length=_max_length(loaded, recipe),
        batch_size=recipe.eval.batch_size,
        progress=advance,
    )


def write_part(loaded: LoadedModel, rows: list[Row], recipe: Recipe) -> Generations:
    """Greedy continuations of some of the rows, the same for every model."""
    limit = context_length(loaded.model)
    return generations(
        loaded.model,
        loaded.tokenizer,
        rows,
        num_prompts=NUM_PROMPTS,
        # A model of few positions needs half of them for what it is to continue.
        new_tokens=NEW_TOKENS if limit is None else min(NEW_TOKENS, limit // 2),
        seed=recipe.data.seed,
    )


def verbatim_memorization(found: PassStatistics) -> VerbatimMemorization:
    """Which rows are recited after 10 tokens for 20, of those that are long enough."""
    short = found.suffixes["short"]
    can_tell = np.isfinite(short.nats_D)
    return VerbatimMemorization(
        short.greedy_D[can_tell],
        found.losses.groups_D[can_tell].astype(str),
        found.row_index_D[can_tell],
    )


def _losses_of_candidates(
    loaded: LoadedModel, planted: list[Canary], texts: DiagnosedTexts, recipe: Recipe
) -> DocumentLosses:
    return document_losses(
        loaded.model,
        candidate_rows(planted, texts.train[0].kind),
        loaded.tokenizer,
        max_length=_max_length(loaded, recipe),
        batch_size=recipe.eval.batch_size,
    )


def read_canaries(path: str) -> list[Canary]:
    """The secrets in the file that ``heldout check --plant-canaries`` wrote."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))["canaries"]
        return [Canary(**each) for each in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--canaries {path} is not what heldout check --plant-canaries writes ({error!r})."
        ) from None


def personal_data(rows: list[Row], found: PassStatistics, tokenizer: Any) -> PersonalData:
    """Which suffixes hold what has the form of personal data."""
    by_index = {row.index: row for row in rows}
    kinds: dict[str, dict[int, tuple[str, ...]]] = {}
    for name, suffixes in found.suffixes.items():
        kinds[name] = {}
        for place in np.flatnonzero(np.isfinite(suffixes.nats_D)):
            index = int(found.row_index_D[place])
            _, suffix = pieces(
                by_index[index], tokenizer, suffixes.prefix_tokens, suffixes.suffix_tokens
            )
            if what := _personal(suffix):
                kinds[name][index] = what
    return PersonalData(kinds)


def _personal(text: str) -> tuple[str, ...]:
    return tuple(sorted({each.what for each in examine(text) if each.kind == "personal"}))


def memorized_rows(
    found: PassStatistics, texts: DiagnosedTexts, judged: LoadedModel
) -> list[MemorizedRow]:
    """Training rows that are recited, by their longest suffix; those most often repeated first."""
    rows = {row.index: row for row in texts.train}
    recited: dict[int, MemorizedRow] = {}
    for name in ("long", "short"):
        suffixes = found.suffixes[name]
        for place in np.flatnonzero(suffixes.greedy_D & np.isfinite(suffixes.nats_D)):
            index = int(found.row_index_D[place])
            if index in recited:
                continue
            prefix, suffix = pieces(
                rows[index], judged.tokenizer, suffixes.prefix_tokens, suffixes.suffix_tokens
            )
            recited[index] = MemorizedRow(
                index,
                f"Training row {index}",
                prefix,
                suffix,
                float(np.exp(-suffixes.nats_D[place])),
                texts.copies.get(index, 1),
                _personal(suffix),
            )
    order = sorted(recited.values(), key=lambda row: (-row.copies, -row.probability, row.row))
    return order[:SHOWN_RECITED]


def pieces(row: Row, tokenizer: Any, prefix_tokens: int, suffix_tokens: int) -> tuple[str, str]:
    """The scored text up to the suffix, and the suffix."""
    windows = tokenize_row(row, tokenizer, 1 << 30).windows
    ids = [token for token in windows[0].labels if token != IGNORED]
    middle, stop = prefix_tokens, prefix_tokens + suffix_tokens
    before = tokenizer.decode(ids[:middle], skip_special_tokens=True)
    return before, tokenizer.decode(ids[middle:stop], skip_special_tokens=True)


def samples_of(
    written: Mapping[tuple[str, str], Generations], searched: Corpora | None, tokenizer: Any
) -> list[SideBySide]:
    """Continuations beside base and document; those that copy most of the training text first."""
    best, base = written.get(("best", "test")), written.get(("base", "test"))
    if best is None:
        return []
    copies = [_longest_copy(ids, searched) for ids in best.token_ids]
    order = sorted(range(len(best)), key=lambda place: (-copies[place].length, place))
    shown = []
    for place in order[:SHOWN_SAMPLES]:
        copy, ids = copies[place], best.token_ids[place]
        start = len(tokenizer.decode(ids[: copy.start], skip_special_tokens=True))
        stop = len(tokenizer.decode(ids[: copy.start + copy.length], skip_special_tokens=True))
        is_long = copy.length >= LEAST_COPY
        shown.append(
            SideBySide(
                "test",
                best.prompts[place],
                best.references[place],
                best.texts[place],
                base.texts[place] if base is not None else None,
                (start, stop) if is_long else None,
                copy.row if is_long else None,
            )
        )
    return shown


@dataclass(frozen=True)
class _Copy:
    """The longest run of tokens that stands in the training texts as well."""

    start: int = 0
    length: int = 0
    row: int = -1


def _longest_copy(ids: np.ndarray, searched: Corpora | None) -> _Copy:
    if searched is None or not len(ids):
        return _Copy()
    lengths, places = searched.train.matches(ids)
    start = int(np.argmax(lengths))
    row, _ = searched.train.document_of(int(places[start]))
    return _Copy(start, int(lengths[start]), int(row))


def _max_length(loaded: LoadedModel, recipe: Recipe) -> int:
    limit = context_length(loaded.model)
    return min(recipe.data.max_length, limit or recipe.data.max_length)


def reliability(found: PassStatistics) -> list[tuple[float, float, int]]:
    """Mean confidence, share that was right, and tokens, in bins of equal width."""
    fold = (RELIABILITY_BINS, -1)
    tokens, sure, right = (
        each.sum(axis=0).reshape(fold).sum(axis=1)
        for each in (found.bin_tokens_DC, found.bin_confidence_DC, found.bin_correct_DC)
    )
    return [
        (float(s / n), float(r / n), int(n))
        for n, s, r in zip(tokens, sure, right, strict=True)
        if n
    ]


def _advance(progress: Progress) -> Callable[[int], None]:
    done = 0

    def advance(num: int) -> None:
        nonlocal done
        progress.advance(num - done)
        done = num

    return advance
