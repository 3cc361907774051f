"""What augmentations do to the rows, measured: how much changes, what is new, what still fits."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from heldout.core.augmentation import Augmentation, KeyFacts, rows_of_epoch
from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import schedule_factor
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.run_files import PreflightCheck
from heldout.core.segments import WORD
from heldout.core.shares import share_estimate
from heldout.core.stats import (
    paired_difference,
    ratio_estimate,
)
from heldout.jobs.kit.augmentations import augmentations_of
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.parts import sample_rows
from heldout.jobs.kit.target import Target
from heldout.lm.measuring.embeddings import sentence_embeddings

MOST_ROWS = 100  # training rows whose variants are measured
MOST_SLOW_ROWS = 20  # by what asks a model or a translator
LEAST_SHARE = 0.05  # of rows: what changes fewer does next to nothing

Measured = list[Measurement | NotMeasured]


def check_variants(
    augmentations: Sequence[Augmentation], rows: Sequence[Row], recipe: Recipe
) -> list[PreflightCheck]:
    """One line for each augmentation, of what can be said without a model."""
    checks = []
    facts = KeyFacts(recipe.data.key_facts)
    for row in rows:
        facts.kept(row.text, row.text)
    for name, augmentation in zip(recipe.augment, augmentations, strict=True):
        title = f"augmentation {name.replace('_', ' ')}"
        if augmentation.added is not None:
            added = len(variants_of(augmentation, list(rows), recipe)) - len(rows)
            checks.append(
                PreflightCheck(title, "ok", f"{added:,} rows of other sources in each epoch")
            )
        elif augmentation.inputs is not None:
            checks.append(PreflightCheck(title, "ok", "works on what is read; the text stays"))
        elif augmentation.SLOW:
            words = f"asks a model or translator: {MOST_SLOW_ROWS} rows are measured before the run"
            checks.append(PreflightCheck(title, "ok", words))
        else:
            some = sample_rows(rows, MOST_ROWS, recipe.data.seed)
            variants = variants_of(augmentation, some, recipe)
            share = float(np.mean([changed(*pair) for pair in zip(some, variants, strict=True)]))
            new = len(new_words(some, variants))
            words = f"changes {share:.0%} of {len(some)} rows that were tried; {new:,} new words"
            checks.append(PreflightCheck(title, "ok" if share >= LEAST_SHARE else "warning", words))
    return checks


def measure_fidelity(
    run: Run, target: Target, recipe: Recipe, rows: Sequence[Row], progress: Progress
) -> None:
    """Every augmentation alone on a sample of the training rows, into ``augmentation.json``."""
    augmentations = augmentations_of(recipe, target, lambda name: list(run.read_rows(name)))
    loaded = target.load(recipe)
    entries = []
    with progress.stage("what augmentation changes", len(augmentations)):
        for name, augmentation in zip(recipe.augment, augmentations, strict=True):
            some = sample_rows(
                rows, MOST_SLOW_ROWS if augmentation.SLOW else MOST_ROWS, recipe.data.seed
            )
            found = fidelity(augmentation, some, recipe, loaded.model, loaded.tokenizer)
            entries.append({"name": name, "measurements": [one.to_json() for one in found]})
            progress.advance(1, name)
    run.write_json(
        "augmentation.json", {"schema": "heldout.augmentation/1", "augmentations": entries}
    )


def fidelity(
    augmentation: Augmentation, rows: list[Row], recipe: Recipe, model: Any, tokenizer: Any
) -> Measured:
    """Unchanged rows, new words, the base model's loss, and similarity, over changed rows."""
    names = ("unchanged_rows", "new_words", "variant_nll", "similarity")
    if augmentation.added is not None or augmentation.inputs is not None:
        adds = "it adds rows of other sources and changes none"
        reads = "it changes what the model reads, not the text"
        reason = adds if augmentation.added is not None else reads
        return [NotMeasured(name, reason) for name in names]
    variants = variants_of(augmentation, rows, recipe)
    pairs = [pair for pair in zip(rows, variants, strict=True) if changed(*pair)]
    unchanged, interval = share_estimate(
        [not changed(*pair) for pair in zip(rows, variants, strict=True)],
        [row.group for row in rows],
    )
    new = len(new_words(rows, variants))
    found: Measured = [
        Measurement("unchanged_rows", unchanged, "share of rows", len(rows), "row", interval),
        Measurement("new_words", float(new), "words", len(rows), "row"),
    ]
    if len({row.group for row, _ in pairs}) < 2:
        reason = f"{len(pairs)} of {len(rows)} rows changed: at least 2 groups are needed"
        return [*found, *(NotMeasured(name, reason) for name in names[2:])]
    return [*found, _loss(pairs, recipe, model, tokenizer), _similarity(pairs, recipe)]


def variants_of(augmentation: Augmentation, rows: list[Row], recipe: Recipe) -> list[Row]:
    """The rows of a first epoch at full strength."""
    name = type(augmentation).__name__
    at_end = schedule_factor(augmentation.schedule, 1.0, name)
    augmentation.set_progress(float(at_end > schedule_factor(augmentation.schedule, 0.0, name)))
    facts = KeyFacts(recipe.data.key_facts)
    found = rows_of_epoch(rows, [augmentation], seed=recipe.train.seed, epoch=0, facts=facts)
    augmentation.set_progress(0.0)
    return found


def changed(row: Row, variant: Row) -> bool:
    return row.messages != variant.messages


def new_words(rows: Sequence[Row], variants: Sequence[Row]) -> set[str]:
    """Words, in lower case, that the variants have and the rows have not."""

    def words(of: Sequence[Row]) -> set[str]:
        return {word.lower() for row in of for word in WORD.findall(row.text)}

    return words(variants) - words(rows)


def _loss(
    pairs: Sequence[tuple[Row, Row]], recipe: Recipe, model: Any, tokenizer: Any
) -> Measurement:
    """Over the whole text, prompts too, so that a change of a prompt shows."""

    def losses(rows: list[Row]) -> np.ndarray:
        plain = ({"role": "text", "content": row.text} for row in rows)
        texts = [
            dataclasses.replace(row, messages=(message,))
            for row, message in zip(rows, plain, strict=True)
        ]
        found = losses_of(model, tokenizer, texts, recipe)
        return found.nll_nats_D / np.maximum(1, found.num_tokens_D)

    rows, variants = zip(*pairs, strict=True)
    before_D, after_D = losses(list(rows)), losses(list(variants))
    groups = [row.group for row in rows]
    ones = np.ones(len(rows))
    level = ratio_estimate(after_D, ones, groups)
    rise = paired_difference(after_D, before_D, ones, groups)
    return Measurement(
        "variant_nll",
        level.value,
        "nats/token",
        level.num_groups,
        "group",
        level.interval,
        {"originals": Contrast(rise.value, rise.interval, rise.p_value)},
        "base model, mean over changed rows, prompts included",
    )


def _similarity(pairs: Sequence[tuple[Row, Row]], recipe: Recipe) -> Measurement | NotMeasured:
    if not recipe.eval.embedding_model:
        return NotMeasured("similarity", "no eval.embedding_model is named")
    rows, variants = zip(*pairs, strict=True)
    texts = [row.text for row in (*rows, *variants)]
    embedded_DE = sentence_embeddings(recipe.eval.embedding_model, texts)
    cosine_D = (embedded_DE[: len(rows)] * embedded_DE[len(rows) :]).sum(1).double().numpy()
    found = ratio_estimate(cosine_D, np.ones(len(rows)), [row.group for row in rows])
    return Measurement(
        "similarity", found.value, "cosine", found.num_groups, "group", found.interval
    )
