"""What probes need: one pass over each text per model, and one batch of continuations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heldout.core.diagnosis import RecitedRow, SideBySide
from heldout.core.facts import SetupCheck
from heldout.core.probe import Evidence, Recital
from heldout.core.progress import Progress
from heldout.core.readings import Generations, Readings
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.data.quality import examine
from heldout.jobs.diagnosed_texts import DiagnosedTexts
from heldout.lm.generations import generations
from heldout.lm.landscape import update_norms
from heldout.lm.load import LoadedModel
from heldout.lm.nll import context_length
from heldout.lm.readings import readings
from heldout.lm.setup_checks import setup_checks
from heldout.lm.tokenize import IGNORED, tokenize_row

NUM_PROMPTS = 64
NEW_TOKENS = 64
SHOWN_SAMPLES = 6
SHOWN_RECITED = 200
RELIABILITY_BINS = 15


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    probes: list[str]
    generate: bool = True
    canaries: str = ""
    lexicon: str = ""


@dataclass(frozen=True)
class Gathered:
    """Evidence, and what the page shows beside it."""

    evidence: Evidence
    checks: tuple[SetupCheck, ...] = ()
    recited: list[RecitedRow] = field(default_factory=list)
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
    models = {"base": base, "best": judged} if base else {"best": judged}
    parts = {"train": texts.train, "test": texts.heldout}
    parts |= {f"domain:{name}": rows for name, rows in texts.domains.items()}
    read: dict[tuple[str, str], Readings] = {}
    with progress.stage("reading", len(models) * sum(map(len, parts.values()))):
        for name, loaded in models.items():
            for part, rows in parts.items():
                read[name, part] = read_part(loaded, rows, recipe, _advance(progress))
    written: dict[tuple[str, str], Generations] = {}
    if asked.generate:
        with progress.stage("writing", len(models)):
            for name, loaded in models.items():
                written[name, "test"] = write_part(loaded, texts.heldout, recipe)
                progress.advance(1, name)
    evidence = Evidence(
        losses={key: found.losses for key, found in read.items()},
        recitals={key: recital_of(found) for key, found in read.items()},
        readings=read,
        generations=written,
    )
    return Gathered(
        evidence,
        recited=recited_of(read["best", "train"], texts, judged, recipe),
        samples=samples_of(written),
        reliability={
            name: points for name in models if (points := _reliability(read[name, "test"]))
        },
        checks=tuple(
            setup_checks(
                judged.model,
                base.model if base else None,
                judged.tokenizer,
                base.tokenizer if base else None,
                texts.train,
                texts.heldout,
                max_length=recipe.data.max_length,
                batch_size=recipe.eval.batch_size,
            )
        ),
        update_norm=_moved(judged, base),
    )


def _moved(judged: LoadedModel, base: LoadedModel | None) -> float | None:
    """Norm of the change of all weights over the base's, where both have the same shapes."""
    if base is None:
        return None
    shapes = [[(n, p.shape) for n, p in one.model.named_parameters()] for one in (judged, base)]
    return update_norms(judged.model, base.model)["all"] if shapes[0] == shapes[1] else None


def read_part(
    loaded: LoadedModel,
    rows: list[Row],
    recipe: Recipe,
    advance: Callable[[int], None] | None = None,
) -> Readings:
    """All that one pass tells, with the window and batch sizes of the recipe."""
    limit = context_length(loaded.model)
    return readings(
        loaded.model,
        rows,
        loaded.tokenizer,
        max_length=min(recipe.data.max_length, limit or recipe.data.max_length),
        batch_size=recipe.eval.batch_size,
        progress=advance,
    )


def write_part(loaded: LoadedModel, rows: list[Row], recipe: Recipe) -> Generations:
    """Greedy continuations of some of the rows, the same for every model."""
    return generations(
        loaded.model,
        loaded.tokenizer,
        rows,
        num_prompts=NUM_PROMPTS,
        new_tokens=NEW_TOKENS,
        seed=recipe.data.seed,
    )


def recital_of(found: Readings) -> Recital:
    """Which rows are recited after 10 tokens for 20, of those that are long enough."""
    short = found.suffixes["short"]
    can_tell = np.isfinite(short.nats_D)
    return Recital(
        short.greedy_D[can_tell],
        found.losses.groups_D[can_tell].astype(str),
        found.row_index_D[can_tell],
    )


def recited_of(
    found: Readings, texts: DiagnosedTexts, judged: LoadedModel, recipe: Recipe
) -> list[RecitedRow]:
    """Training rows that are recited, by their longest suffix; those most often repeated first."""
    rows = {row.index: row for row in texts.train}
    recited: dict[int, RecitedRow] = {}
    for name in ("long", "short"):
        suffixes = found.suffixes[name]
        for place in np.flatnonzero(suffixes.greedy_D & np.isfinite(suffixes.nats_D)):
            index = int(found.row_index_D[place])
            if index in recited:
                continue
            prefix, suffix = pieces(
                rows[index], judged.tokenizer, suffixes.prefix_tokens, suffixes.suffix_tokens
            )
            recited[index] = RecitedRow(
                index,
                f"Training row {index}",
                prefix,
                suffix,
                float(np.exp(-suffixes.nats_D[place])),
                texts.copies.get(index, 1),
                tuple(sorted({each.what for each in examine(suffix) if each.kind == "personal"})),
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


def samples_of(written: Mapping[tuple[str, str], Generations]) -> list[SideBySide]:
    """The first continuations, base and judged model beside the document."""
    best, base = written.get(("best", "test")), written.get(("base", "test"))
    if best is None:
        return []
    return [
        SideBySide(
            "test",
            best.prompts[place],
            best.references[place],
            best.texts[place],
            base.texts[place] if base is not None else None,
        )
        for place in range(min(SHOWN_SAMPLES, len(best)))
    ]


def _reliability(found: Readings) -> list[tuple[float, float, int]]:
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
