"""Each technique alone, at its default strength, beside no regularization at all.

The embedded model is fine-tuned whole on 80 rows of each of two data sets (``short_texts.py``),
three times with other training rows and another order. The plain condition is an honest baseline:
Adam with bias correction, warm-up and a linear fall of the rate, a learning rate found by search on
validation, epochs enough to pass the lowest held-out loss, and its best epoch kept, as in all
conditions (after "Revisiting Few-sample BERT Fine-tuning", Zhang et al. 2021, arXiv 2006.05987). A
technique takes the plain condition's learning rate and differs in itself alone.

    python benchmarks/each_regularizer.py --tune             # the plain condition's rate, once
    python benchmarks/each_regularizer.py --shard 0/2        # any number of processes
    python benchmarks/each_regularizer.py --shard 1/2
    python benchmarks/each_regularizer.py --report --write-docs

Every training is appended to ``.cache/each_regularizer/`` when it is done and is not run again; one
that failed is. ``--again NAME`` runs a condition anew. One thread each.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
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
    over_documents,
    plain_figures,
    put_back,
    recipe_of,
    spread_over_seeds,
    train_step,
    with_interval,
    write_section,
)
from record import write_record
from short_texts import DATA, Parts, sha256_of

from heldout.core.discovery import build, entries_of, plugin_class
from heldout.core.losses import DocumentLosses
from heldout.core.probe import VerbatimMemorization
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation, RollBack, Stop
from heldout.core.stats import paired_difference
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.nll import evaluating
from heldout.lm.scored_loss import scored_logits
from heldout.lm.tokenize import IGNORED, collate, tokenize_row
from heldout.lm.weights import copies, trained_parameters, weights_replaced
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

# N scored tokens, V vocabulary

FOLDER = Path(".cache/each_regularizer")
MARKS = ("<!-- each_regularizer: written by benchmarks/each_regularizer.py -->", "<!-- end -->")
SEEDS = (0, 1, 2)
EPOCHS = 5
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Technique:
    """What is trained, and the condition that it differs from in one thing."""

    name: str
    regularizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    control: str = PLAIN
    note: str = ""  # why it is not just the regularizer's default
    method: str = "full"
    batch_size: int = BATCH
    micro_batch_size: int = BATCH
    mixed: bool = False  # each step also takes as many rows of the other data set
    schedule_free: bool = False
    own_rate: bool = False  # what changes the optimization itself gets a search of its own


DROPOUT = {"dropout": {"hidden": 0.1}}
# What cannot be run as its default alone, and conditions that are no regularizers.
SPECIAL = [
    Technique(PLAIN, own_rate=True),
    Technique("dropout", DROPOUT, note="hidden=.1: its default drops nothing"),
    Technique(
        "r_drop",
        {**DROPOUT, "r_drop": {}},
        control="dropout",
        note="beside dropout hidden=.1, which is its control: it needs two different masks",
    ),
    Technique("mixed", mixed=True, note="as many rows of the other data set in each step"),
    Technique(
        "domain_adversarial",
        {"domain_adversarial": {}},
        control="mixed",
        mixed=True,
        note="needs two sources; its control is the same mix without it",
    ),
    Technique(
        "small_batch_noise",
        {"small_batch_noise": {}},
        micro_batch_size=BATCH // 4,
        note="needs several micro-batches: 4 of 2 rows",
    ),
    Technique(
        "lora_rank_8", method="lora", own_rate=True, note="LoRA of rank 8; a rate of its own"
    ),
    Technique("batch_4", batch_size=4, micro_batch_size=4, own_rate=True, note="a rate of its own"),
    Technique(
        "batch_16", batch_size=16, micro_batch_size=16, own_rate=True, note="a rate of its own"
    ),
    Technique("schedule_free", schedule_free=True, own_rate=True, note="a rate of its own"),
]


def all_conditions() -> dict[str, Technique]:
    """The plain condition first, then all others, regularizers as they are found."""
    # Distillation needs models to learn from: benchmarks/data_efficiency.py.
    found = [e.name for e in entries_of("regularizer") if e.name != "distillation"]
    special = {
        condition.name: condition
        for condition in SPECIAL
        if all(name in found for name in condition.regularizers)
    }
    for name in found:
        special.setdefault(name, Technique(name, {name: {}}))
    return special


# Training


def trained(
    condition: Technique, data: str, seed: int, rate: float, epochs: int = EPOCHS
) -> dict[str, Any]:
    """One training, measured; what the report needs, as JSON values; seconds are of CPU time."""
    begin = time.process_time()
    recipe = recipe_for(condition, seed, rate)
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = prepare(loaded, recipe), loaded.tokenizer
    parts = DATA[data](seed)
    batches = Batches(condition, data, seed, parts, tokenizer)
    total = batches.steps_per_epoch * epochs
    steps = Steps(
        model,
        [regularizer_of(name, values, seed) for name, values in condition.regularizers.items()],
        total_steps=total,
        recipe=recipe,
        evaluates=True,
    )
    optimizer, falling = optimizer_of(steps, rate, total, schedule_free=condition.schedule_free)

    def validate() -> DocumentLosses:
        return losses_of(model, tokenizer, parts["validation"], recipe)

    history = [Evaluation(0, 0.0, base_validation(data, seed))]
    best = last = copies(trained_parameters(model))
    ended = ""
    with steps.attached():
        for epoch in range(epochs):
            for window in batches.of_epoch(epoch):
                train_step(steps, window, optimizer, falling)
            with measured_weights(steps, optimizer):
                history.append(Evaluation(steps.step, epoch + 1.0, validate()))
                last = copies(trained_parameters(model))
            if history[-1] is best_of(history):
                best = last
            decision = steps_decision(steps, history)
            if isinstance(decision, Stop):
                ended = decision.reason
                break
            if isinstance(decision, RollBack):
                put_back(model, best)
                restart(optimizer, falling, decision.rate_factor)
                ended = decision.reason
    put_back(model, best)
    finished: dict[str, float] = {}
    for regularizer in steps.regularizers:
        finished |= regularizer.finish(model, validate)
    trained = time.process_time() - begin
    result = {
        "arm": condition.name,
        "data": data,
        "seed": seed,
        "rate": rate,
        "epochs": epochs,
        "settings": asdict(condition),
        "sha256": sha256_of(parts["test"]),
        "validation": [evaluation.validation.nats_per_token for evaluation in history],
        "best_epoch": best_of(history).epoch,
        "ended": ended,
        "finish": finished,
        "best": measured(model, tokenizer, parts, recipe),
    }
    with weights_replaced(model, last):
        result["last"] = measured(model, tokenizer, parts, recipe)
    return {**result, "train_seconds": trained, "seconds": time.process_time() - begin}


def regularizer_of(name: str, values: dict[str, Any], seed: int) -> Any:
    """Other random numbers for each seed, where it draws any of its own."""
    (entry,) = (entry for entry in entries_of("regularizer") if entry.name == name)
    if "seed" in {item.name for item in fields(plugin_class(entry)) if item.init}:
        values = {"seed": seed, **values}
    return build("regularizer", name, values)


def recipe_for(condition: Technique, seed: int, rate: float) -> Recipe:
    recipe = recipe_of(
        seed,
        rate,
        method=condition.method,
        batch_size=condition.batch_size,
        micro_batch_size=condition.micro_batch_size,
        schedule_free=condition.schedule_free,
    )
    return replace(recipe, regularizers=condition.regularizers)


class Batches:
    """The windows of every epoch, in an order that follows from the seed alone."""

    def __init__(self, condition: Technique, data: str, seed: int, parts: Parts, tokenizer: Any):
        self.condition = condition
        self.seed = seed
        rows = [parts["train"]]
        if condition.mixed:
            (other,) = DATA.keys() - {data}
            rows.append(DATA[other](seed)["train"])
        self.windows = WindowDataset([row for some in rows for row in some], tokenizer, 256)
        assert len(self.windows) == sum(map(len, rows)), "no row is longer than a window"
        self.sizes = [len(some) for some in rows]
        self.steps_per_epoch = math.ceil(self.sizes[0] / condition.batch_size)

    def of_epoch(self, epoch: int) -> Iterator[list[dict[str, torch.Tensor]]]:
        """One list of micro-batches for each optimizer step."""
        orders = []
        for first, size in zip((0, self.sizes[0]), self.sizes, strict=False):
            generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
            orders.append((first + torch.randperm(size, generator=generator)).tolist())
        size, micro = self.condition.batch_size, self.condition.micro_batch_size * len(orders)
        for start in range(0, self.sizes[0], size):
            chosen = [position for order in orders for position in order[start : start + size]]
            items = [self.windows[position] for position in chosen]
            yield [
                self.windows.collate(items[first : first + micro])
                for first in range(0, len(items), micro)
            ]


@contextmanager
def measured_weights(steps: Steps, optimizer: Any) -> Iterator[None]:
    """The weights that an evaluation sees: averages, where the condition keeps some."""
    keeps_two_forms = hasattr(optimizer, "eval")  # schedule-free
    if keeps_two_forms:
        optimizer.eval()
    with steps.evaluation_weights():
        yield
    if keeps_two_forms:
        optimizer.train()


def steps_decision(steps: Steps, history: Sequence[Evaluation]) -> Any:
    """The first decision of any regularizer that is not to go on."""
    decisions = [regularizer.decide(history) for regularizer in steps.regularizers]
    return next((d for d in decisions if isinstance(d, Stop | RollBack)), None)


def restart(optimizer: Any, falling: Any, rate_factor: float) -> None:
    """Forget the optimizer's moments, and scale the rate from here."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] *= rate_factor
    falling.base_lrs = [base * rate_factor for base in falling.base_lrs]


def measured(model: Any, tokenizer: Any, parts: Parts, recipe: Recipe) -> dict[str, Any]:
    """Sealed-test losses and calibration, and which training rows are memorized."""
    memorized = VerbatimMemorization.of(
        pass_statistics(
            model,
            parts["train"],
            tokenizer,
            max_length=recipe.data.max_length,
            batch_size=recipe.eval.batch_size,
        )
    )
    return {
        "groups": [row.group for row in parts["test"]],
        "recited": memorized.memorized_D.tolist(),
        "recited_groups": memorized.groups_D.tolist(),
        **tested(model, parts["test"], tokenizer, recipe),
    }


def tested(model: Any, rows: Sequence[Any], tokenizer: Any, recipe: Recipe) -> dict[str, Any]:
    """Loss and confidence in one pass: per row sums over tokens, and the calibration error.

    Confidence is the probability of the likeliest token; ``excess`` is confidence minus whether
    that token is right. The expected calibration error is over 15 bins of equal width.
    """
    windows = []
    for position, row in enumerate(rows):
        found = tokenize_row(row, tokenizer, recipe.data.max_length).windows
        windows += [(position, window) for window in found]
    windows.sort(key=lambda item: -len(item[1].input_ids))
    nats, confidences, corrects, owners = [], [], [], []
    with evaluating(model):
        for start in range(0, len(windows), recipe.eval.batch_size):
            part = windows[start : start + recipe.eval.batch_size]
            batch = collate([window for _, window in part], tokenizer.pad_token_id)
            logits_NV, targets_N = scored_logits(model, batch)
            log_p_NV = logits_NV.log_softmax(dim=1)
            top_N, likeliest_N = log_p_NV.max(dim=1)
            nats.append(-log_p_NV.gather(1, targets_N[:, None])[:, 0])
            confidences.append(top_N.exp())
            corrects.append(likeliest_N == targets_N)
            rows_N = (batch["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
            owners.append(torch.tensor([position for position, _ in part])[rows_N])
    confidence_N = torch.cat(confidences).double().numpy()
    excess_N = confidence_N - torch.cat(corrects).numpy()
    bin_N = np.minimum((confidence_N * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    owner_N = torch.cat(owners).numpy()

    def per_row(values_N=None) -> list[float]:
        return np.bincount(owner_N, weights=values_N, minlength=len(rows)).tolist()

    return {
        "nll": per_row(torch.cat(nats).double().numpy()),
        "tokens": per_row(),
        "excess": per_row(excess_N),
        "ece": float(np.abs(np.bincount(bin_N, weights=excess_N)).sum() / len(excess_N)),
    }


@cache
def base_validation(data: str, seed: int) -> DocumentLosses:
    """The untrained model's, the same for all conditions."""
    recipe = recipe_of(seed, 1e-3)
    loaded = Target(MODEL).load(recipe)
    return losses_of(loaded.model, loaded.tokenizer, DATA[data](seed)["validation"], recipe)


# Keeping what is done


class Results:
    """Finished trainings by (condition, data, seed, rate); the newest of two counts."""

    def __init__(self, folder: Path, shard: int, epochs: int = EPOCHS):
        self.finished = Finished(folder, shard)
        self.epochs = epochs
        self.again: set[str] = set()

    def read(self) -> dict[tuple, Run]:
        return {
            (run["arm"], run["data"], run["seed"], f"{run['rate']:.6g}"): run
            for run in self.finished.runs()
        }

    def train(self, condition: Technique, data: str, seed: int, rate: float) -> Run:
        """The result, from the file or from a training that is written there."""
        known = self.read().get((condition.name, data, seed, f"{rate:.6g}"))
        if known and "error" not in known and condition.name not in self.again:
            return known
        result = {"arm": condition.name, "data": data, "seed": seed, "rate": rate}
        result |= attempted(lambda: trained(condition, data, seed, rate, self.epochs))
        result["time"] = time.time()
        self.finished.append(result)
        print(words_of(result), flush=True)
        return result


def words_of(result: dict[str, Any]) -> str:
    start = f"{result['data']:10} {result['arm']:22} seed {result['seed']} rate {result['rate']:g}"
    for kind in FAILURES:
        if kind in result:
            return f"{start}: {kind}: {result[kind]}"
    curve = " ".join(f"{value:.3f}" for value in result["validation"])
    best, last = losses_in(result, "best"), losses_in(result, "last")
    return (
        f"{start}: validation {curve}; test best {best.nats_per_token:.3f} last "
        f"{last.nats_per_token:.3f}; recited {mean(result['last']['recited']):.2f}; ECE "
        f"{result['last']['ece']:.3f}; {result['seconds']:.1f} s"
    )


def rate_of(
    results: Results, condition: Technique, data: str, seeds: Sequence[int]
) -> float | None:
    """Its learning rate: the plain condition's, or the best on validation, mean over seeds."""
    if not condition.own_rate:
        return rate_of(results, SPECIAL[0], data, seeds)

    def loss_at(rate: float) -> float | None:
        runs = [results.train(condition, data, seed, rate) for seed in seeds]
        if any("validation" not in run for run in runs):
            return None
        return mean(min(run["validation"]) for run in runs)

    name = f"{condition.name}-{data}"
    return results.finished.rate(name) or results.finished.search_rate(name, loss_at)


# The report


def compare_technique(runs: list[Run], controls: list[Run], data: str) -> Comparison:
    """Trainings of one technique and of its control, in the order of the seeds."""
    memorized = paired_difference(
        np.concatenate([run["last"]["recited"] for run in runs]),
        np.concatenate([run["last"]["recited"] for run in controls]),
        np.ones(sum(len(run["last"]["recited"]) for run in runs)),
        np.concatenate([run["last"]["recited_groups"] for run in runs]),
    )
    figures = {"seconds": median(run["seconds"] for run in runs)}
    for which in ("best", "last"):
        figures |= {
            f"nll_{which}": mean(losses_in(run, which).nats_per_token for run in runs),
            f"recited_{which}": mean(mean(run[which]["recited"]) for run in runs),
            f"ece_{which}": mean(run[which]["ece"] for run in runs),
            f"ece_change_{which}": mean(run[which]["ece"] for run in runs)
            - mean(run[which]["ece"] for run in controls),
            f"excess_confidence_{which}": mean(
                sum(run[which]["excess"]) / sum(run[which]["tokens"]) for run in runs
            ),
        }
    figures["best_epoch"] = mean(run["best_epoch"] for run in runs)
    return compare(
        runs,
        controls,
        data,
        figures,
        recital_change=memorized,  # share of training rows, last weights, condition minus control
        excess_change=over_documents(runs, controls, "last", "excess"),
    )


def report(results: Results, seeds: Sequence[int]) -> tuple[list[Comparison], list[dict[str, str]]]:
    """All comparisons that can be made, and why the others cannot."""
    conditions, entries = all_conditions(), results.read()
    compared, missing = [], []
    for data in DATA:
        runs: dict[str, list[Run]] = {}
        for condition in conditions.values():
            tuned = condition.name if condition.own_rate else PLAIN
            rate = results.finished.rate(f"{tuned}-{data}")
            found = [
                entries.get((condition.name, data, seed, f"{rate or 0:.6g}"), {"error": "not run"})
                for seed in seeds
            ]
            if reasons := failures(found):
                why = "; ".join(reasons)
                missing.append({"technique": condition.name, "data": data, "why": why})
            else:
                runs[condition.name] = found
        check_sealed([run for several in runs.values() for run in several], results.finished.folder)
        compared += [
            compare_technique(found, runs[conditions[name].control], data)
            for name, found in runs.items()
            if conditions[name].control in runs
        ]
    return compared, missing


def figures_of(compared: list[Comparison]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in compared:
        if row.condition == PLAIN:
            figures |= plain_figures(row)
            figures[f"learning_rate_{row.place}"] = row.rate
            continue
        name = f"{row.condition}_{row.place}"
        figures |= gain_figures(row)
        figures[f"recital_change_{name}"] = row.estimates["recital_change"].value
        figures[f"ece_change_{name}"] = row.figures["ece_change_last"]
    techniques = by_mean_gain(compared)
    techniques.pop(PLAIN, None)
    figures["num_techniques"] = len(techniques)
    figures["num_helpful_on_all"] = sum(
        len(rows) == len(DATA) and all(row.helps for row in rows.values())
        for rows in techniques.values()
    )
    return figures


def markdown(
    compared: list[Comparison], keep: Callable[[Mapping[str | int, Comparison]], bool]
) -> str:
    """A table of the techniques that ``keep`` wants, by mean gain; plain comes first."""
    heads = [
        f"{what}, {data}" for what in ("gain", "gain at the end", "recited", "ECE") for data in DATA
    ]
    lines = [f"| technique | against | {' | '.join(heads)} |", "| --- " * (len(heads) + 2) + "|"]
    for name, rows in by_mean_gain(compared).items():
        if name == PLAIN:
            cells = [
                f"({r.figures[f'nll_{which}']:.3f})"
                for which in ("best", "last")
                for r in rows.values()
            ]
            cells += [f"{r.figures['recited_last']:.0%}" for r in rows.values()]
            cells += [f"{r.figures['ece_last']:.3f}" for r in rows.values()]
            lines.append(f"| none (its NLL) | | {' | '.join(cells)} |")
        elif keep(rows):
            found = [rows.get(data) for data in DATA]
            cells = [with_interval(r and r.estimates["gain"]) for r in found]
            cells += [with_interval(r and r.estimates["gain_last"]) for r in found]
            cells += [f"{r.estimates['recital_change'].value:+.0%}" if r else "" for r in found]
            cells += [f"{r.figures['ece_change_last']:+.3f}" if r else "" for r in found]
            control = next(iter(rows.values())).control
            lines.append(f"| {name} | {control} | {' | '.join(cells)} |")
    return "\n".join(lines)


EXPLANATION = (
    "Gains are nats per token of the sealed test, positive where the technique is better, with "
    "95 % intervals over documents (whole countries, whole modules) of the mean over {seeds} "
    "trainings; gain: weights of the best epoch on validation; at the end: last weights. Recited "
    "and ECE are changes at the end: share of training rows recited, expected calibration error "
    "over test tokens. Intervals are conditional on these trainings: the standard deviation of a "
    "gain over seeds is {spread:.3f} (median). Of 20 techniques that do nothing, one has an "
    "interval without zero by chance."
)


def explanation(compared: list[Comparison], seeds: Sequence[int]) -> str:
    return EXPLANATION.format(seeds=len(seeds), spread=spread_over_seeds(compared))


def write_docs(compared: list[Comparison], record: Path, seeds: Sequence[int]) -> None:
    """The techniques without a sure gain on any data set, between the marks in the page."""
    lines = [
        "## One technique alone, at its default strength",
        "",
        "The embedded model (2.6M parameters), fine-tuned whole on 80 rows, against no",
        "regularization with a tuned learning rate and the best epoch kept. Listed is what",
        "gains on neither data set: its interval reaches zero or lies below, or the gain is",
        f"under {MIN_EFFECT:g}. Techniques keep the plain condition's learning rate and number of",
        "epochs: what slows learning would need more. It may still lower recital or mend",
        "calibration.",
        f"Record: `{record.name}`.",
        "",
        markdown(compared, helps_nowhere),
        "",
        explanation(compared, seeds),
    ]
    write_section(MARKS, lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune", action="store_true", help="only the rate of plain")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th technique, from the i-th")
    parser.add_argument("--report", action="store_true", help="compare what is done, and record it")
    parser.add_argument("--write-docs", action="store_true", help="with --report")
    parser.add_argument("--only", nargs="+", default=[], help="names of conditions")
    parser.add_argument("--again", nargs="+", default=[], help="names of conditions to run anew")
    parser.add_argument("--smoke", action="store_true", help="one seed, one epoch, no record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    index, of = map(int, options.shard.split("/"))
    folder = FOLDER.with_name("each_regularizer_smoke") if options.smoke else FOLDER
    seeds = SEEDS[:1] if options.smoke else SEEDS
    results = Results(folder, index, 1 if options.smoke else EPOCHS)
    results.again = set(options.again)
    if options.smoke:
        for data in DATA:
            for condition in SPECIAL:
                path = folder / f"rate-{condition.name}-{data}.json"
                path.write_text(json.dumps({"trials": [], "chosen": 1e-3}))
    if options.report:
        show(results, seeds, record=not options.smoke, docs=options.write_docs)
        return
    for data in DATA:
        if index == 0 or results.finished.rate(f"{PLAIN}-{data}") is not None:
            rate_of(results, SPECIAL[0], data, seeds)
        else:
            raise SystemExit(f"The rate for {data} is not there yet: run --tune first.")
    if options.tune:
        return
    conditions = [
        c for c in all_conditions().values() if not options.only or c.name in options.only
    ]
    units = [(condition, data) for condition in conditions for data in DATA]
    for condition, data in units[index::of]:
        rate = rate_of(results, condition, data, seeds)
        if rate is not None:
            for seed in seeds:
                results.train(condition, data, seed, rate)


def row_of_table(row: Comparison) -> dict[str, Any]:
    return row.to_json(
        technique=row.condition, data=row.place, control=row.control, learning_rate=row.rate
    )


def show(results: Results, seeds: Sequence[int], *, record: bool, docs: bool) -> None:
    compared, missing = report(results, seeds)
    print(markdown(compared, lambda rows: True))
    for entry in missing:
        print(f"{entry['technique']} on {entry['data']}: {entry['why']}")
    words = explanation(compared, seeds)
    print(words)
    if not record:
        return
    notes = {c.name: c.note for c in all_conditions().values() if c.note}
    hashes = {data: sha256_of(make(0)["test"]) for data, make in DATA.items()}
    path = write_record(
        "each_regularizer",
        figures_of(compared),
        table=[*map(row_of_table, compared), *missing],
        seeds=list(seeds),
        data_sha256=" ".join(hashes.values()),
        note=f"{words} Not just the default: {notes}. {EPOCHS} epochs of 80 rows by {BATCH}, "
        "AdamW, warm-up and linear fall; one thread.",
    )
    print(path)
    if docs:
        write_docs(compared, path, seeds)


if __name__ == "__main__":
    main()
