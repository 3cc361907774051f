"""Each technique alone, at its default strength, beside no regularization at all.

The embedded model is fine-tuned whole on 80 rows of each of two data sets (``short_texts.py``),
three times with other training rows and another order. The plain arm is an honest baseline: Adam
with bias correction, warm-up and a linear fall of the rate, a learning rate found by search on
validation, epochs enough to pass the lowest held-out loss, and its best epoch kept, as for all
arms (after "Revisiting Few-sample BERT Fine-tuning", Zhang et al. 2021, arXiv 2006.05987). A
technique takes the plain arm's learning rate and differs in itself alone.

    python benchmarks/each_regularizer.py --tune             # the plain arm's rate, once
    python benchmarks/each_regularizer.py --shard 0/2        # any number of processes
    python benchmarks/each_regularizer.py --shard 1/2
    python benchmarks/each_regularizer.py --report --write-docs

Every arm is appended to ``.cache/each_regularizer/`` when it is done and is not run again; one that
failed is. ``--again NAME`` runs an arm anew. One thread each.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
import transformers
from record import write_record
from short_texts import DATA, Parts, sha256_of

from heldout.core.discovery import build, entries_of, plugin_class
from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation, RollBack, Stop
from heldout.core.run_files import RateTrial
from heldout.core.stats import RatioEstimate, paired_difference, ratio_estimate
from heldout.jobs.evidence.gather import verbatim_memorization
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.lm.head import scored_logits
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.nll import evaluating
from heldout.lm.tokenize import IGNORED, collate, tokenize_row
from heldout.lm.weights import copies, trained_parameters, weights_replaced
from heldout.search.learning_rate import search_learning_rate, start_learning_rate
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

# N scored tokens, V vocabulary

MODEL = "package:heldout"
FOLDER = Path(".cache/each_regularizer")
DOCS = Path(__file__).resolve().parents[1] / "docs" / "what-did-not-help.md"
MARKS = ("<!-- each_regularizer: written by benchmarks/each_regularizer.py -->", "<!-- end -->")
SEEDS = (0, 1, 2)
EPOCHS = 5
BATCH = 8
WARMUP_SHARE = 0.1
CALIBRATION_BINS = 15
MIN_EFFECT = Recipe().eval.min_effect  # nats per token


@dataclass(frozen=True)
class Condition:
    """What is trained, and the arm that it differs from in one thing."""

    name: str
    regularizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    control: str = "plain"
    note: str = ""  # why it is not just the regularizer's default
    method: str = "full"
    batch_size: int = BATCH
    micro_batch_size: int = BATCH
    mixed: bool = False  # each step also takes as many rows of the other data set
    schedule_free: bool = False
    own_rate: bool = False  # what changes the optimization itself gets a search of its own


DROPOUT = {"dropout": {"hidden": 0.1}}
# What cannot be run as its default alone, and arms that are no regularizers.
SPECIAL = [
    Condition("plain", own_rate=True),
    Condition("dropout", DROPOUT, note="hidden=.1: its default drops nothing"),
    Condition(
        "r_drop",
        {**DROPOUT, "r_drop": {}},
        control="dropout",
        note="beside dropout hidden=.1, which is its control: it needs two different masks",
    ),
    Condition("mixed", mixed=True, note="as many rows of the other data set in each step"),
    Condition(
        "domain_adversarial",
        {"domain_adversarial": {}},
        control="mixed",
        mixed=True,
        note="needs two sources; its control is the same mix without it",
    ),
    Condition(
        "small_batch_noise",
        {"small_batch_noise": {}},
        micro_batch_size=BATCH // 4,
        note="needs several micro-batches: 4 of 2 rows",
    ),
    Condition(
        "lora_rank_8", method="lora", own_rate=True, note="LoRA of rank 8; a rate of its own"
    ),
    Condition("batch_4", batch_size=4, micro_batch_size=4, own_rate=True, note="a rate of its own"),
    Condition(
        "batch_16", batch_size=16, micro_batch_size=16, own_rate=True, note="a rate of its own"
    ),
    Condition("schedule_free", schedule_free=True, own_rate=True, note="a rate of its own"),
]


def all_arms() -> dict[str, Condition]:
    """The plain arm first, then all others, regularizers as they are found."""
    # Distillation needs models to learn from: benchmarks/data_efficiency.py.
    found = [e.name for e in entries_of("regularizer") if e.name != "distillation"]
    special = {arm.name: arm for arm in SPECIAL if all(name in found for name in arm.regularizers)}
    for name in found:
        special.setdefault(name, Condition(name, {name: {}}))
    return special


# Training one arm


def train_arm(
    arm: Condition, data: str, seed: int, rate: float, epochs: int = EPOCHS
) -> dict[str, Any]:
    """One training, measured; what the report needs, as JSON values; seconds are of CPU time."""
    begin = time.process_time()
    recipe = recipe_of(arm, seed, rate)
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = prepare(loaded, recipe), loaded.tokenizer
    parts = DATA[data](seed)
    batches = Batches(arm, data, seed, parts, tokenizer)
    total = batches.steps_per_epoch * epochs
    steps = Steps(
        model,
        [regularizer_of(name, values, seed) for name, values in arm.regularizers.items()],
        total_steps=total,
        recipe=recipe,
        evaluates=True,
    )
    optimizer, falling = optimizer_of(arm, steps, rate, total)

    def validate() -> DocumentLosses:
        return losses_of(model, tokenizer, parts["validation"], recipe)

    history = [Evaluation(0, 0.0, base_validation(data, seed))]
    best = last = copies(trained_parameters(model))
    ended = ""
    with steps.attached():
        for epoch in range(epochs):
            for window in batches.of_epoch(epoch):
                steps.gradient(window)
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.max_grad_norm)
                optimizer.step()
                steps.done(optimizer)
                optimizer.zero_grad()
                if falling:
                    falling.step()
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
        "arm": arm.name,
        "data": data,
        "seed": seed,
        "rate": rate,
        "epochs": epochs,
        "settings": asdict(arm),
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


def recipe_of(arm: Condition, seed: int, rate: float) -> Recipe:
    return replace(Recipe(), regularizers=arm.regularizers).replace(
        data={"max_length": 256},
        model={"method": arm.method},
        train={
            "batch_size": arm.batch_size,
            "micro_batch_size": arm.micro_batch_size,
            "seed": seed,
            "learning_rate": rate,
            "optimizer": "schedule_free" if arm.schedule_free else "adamw",
        },
        eval={"batch_size": 20},
    )


class Batches:
    """The windows of every epoch, in an order that follows from the seed alone."""

    def __init__(self, arm: Condition, data: str, seed: int, parts: Parts, tokenizer: Any):
        self.arm = arm
        self.seed = seed
        rows = [parts["train"]]
        if arm.mixed:
            (other,) = DATA.keys() - {data}
            rows.append(DATA[other](seed)["train"])
        self.windows = WindowDataset([row for some in rows for row in some], tokenizer, 256)
        assert len(self.windows) == sum(map(len, rows)), "no row is longer than a window"
        self.sizes = [len(some) for some in rows]
        self.steps_per_epoch = math.ceil(self.sizes[0] / arm.batch_size)

    def of_epoch(self, epoch: int) -> Iterator[list[dict[str, torch.Tensor]]]:
        """One list of micro-batches for each optimizer step."""
        orders = []
        for first, size in zip((0, self.sizes[0]), self.sizes, strict=False):
            generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
            orders.append((first + torch.randperm(size, generator=generator)).tolist())
        size, micro = self.arm.batch_size, self.arm.micro_batch_size * len(orders)
        for start in range(0, self.sizes[0], size):
            chosen = [position for order in orders for position in order[start : start + size]]
            items = [self.windows[position] for position in chosen]
            yield [
                self.windows.collate(items[first : first + micro])
                for first in range(0, len(items), micro)
            ]


def optimizer_of(arm: Condition, steps: Steps, rate: float, total: int):
    """Adam with bias correction, and how its rate goes (None for schedule-free)."""
    groups = steps.parameter_groups(rate)
    warmup = max(1, round(WARMUP_SHARE * total))
    if arm.schedule_free:
        import schedulefree  # an extra of the package

        optimizer = schedulefree.AdamWScheduleFree(groups, lr=rate, warmup_steps=warmup)
        optimizer.train()
        return optimizer, None

    def factor(step: int) -> float:
        return min((step + 1) / warmup, (total - step) / (total - warmup + 1))

    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@contextmanager
def measured_weights(steps: Steps, optimizer: Any) -> Iterator[None]:
    """The weights that an evaluation sees: averages, where the arm keeps some."""
    keeps_two_forms = hasattr(optimizer, "eval")  # schedule-free
    if keeps_two_forms:
        optimizer.eval()
    with steps.evaluation_weights():
        yield
    if keeps_two_forms:
        optimizer.train()


def best_of(history: Sequence[Evaluation]) -> Evaluation:
    return min(history, key=lambda evaluation: evaluation.validation.nats_per_token)


def steps_decision(steps: Steps, history: Sequence[Evaluation]) -> Any:
    """The first decision of any regularizer that is not to go on."""
    decisions = [regularizer.decide(history) for regularizer in steps.regularizers]
    return next((d for d in decisions if isinstance(d, Stop | RollBack)), None)


def restart(optimizer: Any, falling: Any, rate_factor: float) -> None:
    """Forget the moments, and scale the rate from here."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] *= rate_factor
    falling.base_lrs = [base * rate_factor for base in falling.base_lrs]


@torch.no_grad()
def put_back(model: Any, weights: dict[str, torch.Tensor]) -> None:
    for name, parameter in trained_parameters(model).items():
        parameter.copy_(weights[name])


def measured(model: Any, tokenizer: Any, parts: Parts, recipe: Recipe) -> dict[str, Any]:
    """Sealed-test losses and calibration, and which training rows are recited."""
    recited = verbatim_memorization(
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
        "recited": recited.memorized_D.tolist(),
        "recited_groups": recited.groups_D.tolist(),
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
    """The untrained model's, the same for all arms."""
    recipe = recipe_of(SPECIAL[0], seed, 1e-3)
    loaded = Target(MODEL).load(recipe)
    return losses_of(loaded.model, loaded.tokenizer, DATA[data](seed)["validation"], recipe)


# Keeping what is done


class Results:
    """Finished arms by (arm, data, seed, rate); the newest of two counts."""

    def __init__(self, folder: Path, shard: int, epochs: int = EPOCHS):
        self.folder = folder
        self.path = folder / f"arms-{shard}.jsonl"
        self.epochs = epochs
        self.again: set[str] = set()
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
        return {key_of(entry): entry for entry in entries}

    def train(self, arm: Condition, data: str, seed: int, rate: float) -> dict[str, Any]:
        """The arm's result, from the file or from a training that is written there."""
        key = (arm.name, data, seed, f"{rate:.6g}")
        known = self.read().get(key)
        if known and "error" not in known and arm.name not in self.again:
            return known
        try:
            result = train_arm(arm, data, seed, rate, self.epochs)
        except TrainingDiverged as error:
            result = self._without(arm, data, seed, rate, "diverged", error)
        except UserError as error:
            result = self._without(arm, data, seed, rate, "refused", error)
        except Exception as error:  # one faulty technique must not end the others
            result = self._without(arm, data, seed, rate, "error", error)
        result["time"] = time.time()
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(result) + "\n")
        print(words_of(result), flush=True)
        return result

    @staticmethod
    def _without(arm, data, seed, rate, kind: str, error: Exception) -> dict[str, Any]:
        reason = f"{type(error).__name__}: {error}"
        return {"arm": arm.name, "data": data, "seed": seed, "rate": rate, kind: reason}


def key_of(entry: dict[str, Any]) -> tuple:
    return entry["arm"], entry["data"], entry["seed"], f"{entry['rate']:.6g}"


def words_of(result: dict[str, Any]) -> str:
    start = f"{result['data']:10} {result['arm']:22} seed {result['seed']} rate {result['rate']:g}"
    for kind in ("diverged", "refused", "error"):
        if kind in result:
            return f"{start}: {kind}: {result[kind]}"
    curve = " ".join(f"{value:.3f}" for value in result["validation"])
    best, last = losses_in(result, "best"), losses_in(result, "last")
    return (
        f"{start}: validation {curve}; test best {best.nats_per_token:.3f} last "
        f"{last.nats_per_token:.3f}; recited {mean(result['last']['recited']):.2f}; ECE "
        f"{result['last']['ece']:.3f}; {result['seconds']:.1f} s"
    )


def rate_of(results: Results, arm: Condition, data: str, seeds: Sequence[int]) -> float | None:
    """The arm's learning rate: of the plain arm, or the best on validation, mean over seeds."""
    if not arm.own_rate:
        return rate_of(results, SPECIAL[0], data, seeds)
    path = results.folder / f"rate-{arm.name}-{data}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["chosen"]

    def try_rate(rate: float) -> RateTrial:
        runs = [results.train(arm, data, seed, rate) for seed in seeds]
        if any("validation" not in run for run in runs):
            return RateTrial(rate, None, 0)
        return RateTrial(rate, mean(min(run["validation"]) for run in runs), 0)

    start = start_learning_rate("full", 1)
    chosen, trials = search_learning_rate(try_rate, start=start)
    path.write_text(json.dumps({"trials": [t.to_json() for t in trials], "chosen": chosen}))
    return chosen


# The report


@dataclass(frozen=True)
class Comparison:
    """One arm on one data set against its control; gains are control minus arm."""

    arm: str
    data: str
    control: str
    rate: float
    gain: RatioEstimate  # nats per token of the sealed test, weights of the best epoch
    gain_by_seed: list[float]
    gain_last: RatioEstimate
    recital_change: RatioEstimate  # share of training rows, last weights, arm minus control
    excess_change: RatioEstimate  # confidence minus accuracy, last weights, arm minus control
    figures: dict[str, float]

    @property
    def helps(self) -> bool:
        """Surely better, and by as much as matters."""
        return self.gain.interval.low > 0 and self.gain.value >= MIN_EFFECT

    def to_json(self) -> dict[str, Any]:
        estimates = {
            name: {"value": e.value, "low": e.interval.low, "high": e.interval.high}
            for name in ("gain", "gain_last", "recital_change", "excess_change")
            for e in [getattr(self, name)]
        }
        return {
            "technique": self.arm,
            "data": self.data,
            "control": self.control,
            "learning_rate": self.rate,
            **estimates,
            "gain_by_seed": self.gain_by_seed,
            **self.figures,
        }


def compare(runs: list[dict[str, Any]], controls: list[dict[str, Any]]) -> Comparison:
    """Runs of one arm and of its control, in the order of the seeds."""
    recited = paired_difference(
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
    return Comparison(
        arm=runs[0]["arm"],
        data=runs[0]["data"],
        control=controls[0]["arm"],
        rate=runs[0]["rate"],
        gain=gain(runs, controls, "best"),
        gain_by_seed=[
            losses_in(control, "best").nats_per_token - losses_in(run, "best").nats_per_token
            for run, control in zip(runs, controls, strict=True)
        ],
        gain_last=gain(runs, controls, "last"),
        recital_change=recited,
        excess_change=over_documents(runs, controls, "last", "excess"),
        figures=figures,
    )


def gain(runs, controls, which: str) -> RatioEstimate:
    return over_documents(controls, runs, which, "nll")


def over_documents(runs, controls, which: str, name: str) -> RatioEstimate:
    """Mean over seeds of each document's difference, per token, with an interval over groups."""
    first, second = (
        np.mean([run[which][name] for run in several], axis=0) for several in (runs, controls)
    )
    place = runs[0][which]
    return ratio_estimate(first - second, place["tokens"], place["groups"])


def losses_in(run: dict[str, Any], which: str) -> DocumentLosses:
    found = run[which]
    nll, tokens = np.array(found["nll"]), np.array(found["tokens"])
    return DocumentLosses(nll, tokens, np.ones_like(tokens), np.array(found["groups"]))


def report(results: Results, seeds: Sequence[int]) -> tuple[list[Comparison], list[dict[str, str]]]:
    """All comparisons that can be made, and why the others cannot."""
    arms, entries = all_arms(), results.read()
    compared, missing = [], []
    for data in DATA:
        runs: dict[str, list[dict[str, Any]]] = {}
        for arm in arms.values():
            tuned = arm.name if arm.own_rate else "plain"
            path = results.folder / f"rate-{tuned}-{data}.json"
            rate = json.loads(path.read_text())["chosen"] if path.exists() else None
            found = [
                entries.get((arm.name, data, seed, f"{rate or 0:.6g}"), {"error": "not run"})
                for seed in seeds
            ]
            reasons = {
                f"{kind}: {entry[kind]}"
                for entry in found
                for kind in ("diverged", "refused", "error")
                if kind in entry
            }
            if reasons:
                missing.append({"technique": arm.name, "data": data, "why": "; ".join(reasons)})
            else:
                runs[arm.name] = found
        hashes = {run["sha256"] for several in runs.values() for run in several}
        assert len(hashes) <= 1, f"{data}: the sealed test has changed; remove {results.folder}"
        compared += [
            compare(found, runs[arms[name].control])
            for name, found in runs.items()
            if arms[name].control in runs
        ]
    return compared, missing


def figures_of(compared: list[Comparison]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in compared:
        name = f"{row.arm}_{row.data}"
        if row.arm == "plain":
            for key, value in row.figures.items():
                figures[f"plain_{key}_{row.data}"] = value
            figures[f"learning_rate_{row.data}"] = row.rate
            continue
        for key, estimate in (("gain", row.gain), ("gain_last", row.gain_last)):
            figures[f"{key}_{name}"] = estimate.value
            figures[f"{key}_{name}_low"] = estimate.interval.low
            figures[f"{key}_{name}_high"] = estimate.interval.high
        figures[f"recital_change_{name}"] = row.recital_change.value
        figures[f"ece_change_{name}"] = row.figures["ece_change_last"]
    by_arm = {row.arm: [r for r in compared if r.arm == row.arm] for row in compared}
    by_arm.pop("plain", None)
    figures["num_techniques"] = len(by_arm)
    figures["num_helpful_on_all"] = sum(
        len(rows) == len(DATA) and all(row.helps for row in rows) for rows in by_arm.values()
    )
    return figures


def markdown(compared: list[Comparison], keep: Callable[[list[Comparison]], bool]) -> str:
    """A table of the techniques that ``keep`` wants, by mean gain; plain comes first."""
    by_arm: dict[str, dict[str, Comparison]] = {}
    for row in compared:
        by_arm.setdefault(row.arm, {})[row.data] = row
    plain = by_arm.pop("plain", {})
    order = sorted(by_arm, key=lambda name: -mean(r.gain.value for r in by_arm[name].values()))
    heads = [
        f"{what}, {data}" for what in ("gain", "gain at the end", "recited", "ECE") for data in DATA
    ]
    lines = [f"| technique | against | {' | '.join(heads)} |", "| --- " * (len(heads) + 2) + "|"]
    if plain:
        cells = [
            f"({r.figures[f'nll_{which}']:.3f})"
            for which in ("best", "last")
            for r in plain.values()
        ]
        cells += [f"{r.figures['recited_last']:.0%}" for r in plain.values()]
        cells += [f"{r.figures['ece_last']:.3f}" for r in plain.values()]
        lines.append(f"| none (its NLL) | | {' | '.join(cells)} |")
    for name in order:
        rows = by_arm[name]
        if not keep(list(rows.values())):
            continue
        cells = [cell(rows.get(data), "gain") for data in DATA]
        cells += [cell(rows.get(data), "gain_last") for data in DATA]
        cells += [f"{rows[d].recital_change.value:+.0%}" if d in rows else "" for d in DATA]
        cells += [f"{rows[d].figures['ece_change_last']:+.3f}" if d in rows else "" for d in DATA]
        control = next(iter(rows.values())).control
        lines.append(f"| {name} | {control} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: Comparison | None, name: str) -> str:
    if row is None:
        return ""
    estimate = getattr(row, name)
    interval = estimate.interval
    return f"{estimate.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


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
    several = [row for row in compared if row.arm != "plain" and len(seeds) > 1]
    spread = median([stdev(row.gain_by_seed) for row in several] or [math.nan])
    return EXPLANATION.format(seeds=len(seeds), spread=spread)


def write_docs(compared: list[Comparison], record: Path, seeds: Sequence[int]) -> None:
    """The techniques without a sure gain on any data set, between the marks in the page."""
    text = DOCS.read_text(encoding="utf-8")
    section = "\n".join(
        [
            MARKS[0],
            "## One technique alone, at its default strength",
            "",
            "The embedded model (2.6M parameters), fine-tuned whole on 80 rows, against no",
            "regularization with a tuned learning rate and the best epoch kept. Listed is what",
            "gains on neither data set: its interval reaches zero or lies below, or the gain is",
            f"under {MIN_EFFECT:g}. Techniques keep the plain arm's learning rate and number of",
            "epochs: what slows learning would need more. It may still lower recital or mend",
            "calibration.",
            f"Record: `{record.name}`.",
            "",
            markdown(compared, lambda rows: not any(row.helps for row in rows)),
            "",
            explanation(compared, seeds),
            MARKS[1],
        ]
    )
    before, found, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2] if found else "\n"
    DOCS.write_text(f"{before.rstrip()}\n\n{section}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune", action="store_true", help="only the plain arm's learning rate")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th technique, from the i-th")
    parser.add_argument("--report", action="store_true", help="compare what is done, and record it")
    parser.add_argument("--write-docs", action="store_true", help="with --report")
    parser.add_argument("--only", nargs="+", default=[], help="names of arms")
    parser.add_argument("--again", nargs="+", default=[], help="names of arms to run anew")
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
            for arm in SPECIAL:
                path = folder / f"rate-{arm.name}-{data}.json"
                path.write_text(json.dumps({"trials": [], "chosen": 1e-3}))
    if options.report:
        show(results, seeds, record=not options.smoke, docs=options.write_docs)
        return
    for data in DATA:
        if index == 0 or (folder / f"rate-plain-{data}.json").exists():
            rate_of(results, SPECIAL[0], data, seeds)
        else:
            raise SystemExit(f"The rate for {data} is not there yet: run --tune first.")
    if options.tune:
        return
    arms = [arm for arm in all_arms().values() if not options.only or arm.name in options.only]
    units = [(arm, data) for arm in arms for data in DATA]
    for arm, data in units[index::of]:
        rate = rate_of(results, arm, data, seeds)
        if rate is not None:
            for seed in seeds:
                results.train(arm, data, seed, rate)


def show(results: Results, seeds: Sequence[int], *, record: bool, docs: bool) -> None:
    compared, missing = report(results, seeds)
    print(markdown(compared, lambda rows: True))
    for entry in missing:
        print(f"{entry['technique']} on {entry['data']}: {entry['why']}")
    words = explanation(compared, seeds)
    print(words)
    if not record:
        return
    notes = {arm.name: arm.note for arm in all_arms().values() if arm.note}
    hashes = {data: sha256_of(make(0)["test"]) for data, make in DATA.items()}
    path = write_record(
        "each_regularizer",
        figures_of(compared),
        table=[*(row.to_json() for row in compared), *missing],
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
