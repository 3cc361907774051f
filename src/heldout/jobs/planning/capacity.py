"""How many bits a model can hold: trained from scratch on more and more text that has no pattern.

Of uniform random tokens nothing can be understood, so every bit by which a model shortens them is
a bit it has memorized. Bits memorized rise with the text until the model is full: the plateau over
its parameters is its capacity (Morris et al. 2025, arXiv 2505.24832). Training is finite, so what
is found is a lower bound. On real text, what a reference model predicts too is not memorized.
"""

# D rows

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Contrast, Interval, Measurement
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.capacity import CapacityResult, Filled, plateaus
from heldout.core.row import Row
from heldout.core.stats import difference_of_ratios, ratio_estimate
from heldout.jobs.kit.parts import read_parts
from heldout.jobs.kit.target import training_device
from heldout.lm.load import LoadedModel, from_scratch, load_model
from heldout.lm.nll import context_length, document_losses
from heldout.lm.quiet import quiet_libraries
from heldout.lm.source import read_json
from heldout.report import capacity as page
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

LOADS = (0.5, 1.0, 2.0, 3.0, 4.5, 6.0)  # bits of text per parameter
RANDOM = "random tokens"
BATCH = 64  # windows per step
WARMUP = 100  # steps
MAX_TEXT_LENGTH = 512  # tokens per window of real text
MAX_HELD_OUT = 500  # rows of the control


@dataclass(frozen=True)
class _Text:
    """Rows to fill a model with, rows it never sees, and the bits of both under the reference."""

    name: str
    origin: str  # all that the rows and their bits depend on
    tokenizer: Any
    rows: list[Row]
    bits_D: np.ndarray
    heldout: list[Row]
    heldout_bits_D: np.ndarray
    max_length: int
    clipped: bool


def capacity(
    configs: Sequence[str | Path],
    *,
    loads: Sequence[float] = LOADS,
    steps: int = 2000,
    length: int = 32,
    learning_rate: float = 1e-2,
    seed: int = 0,
    data: str = "",
    reference: str = "",
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> CapacityResult:
    """Train each configuration on ``loads`` bits of text per parameter and measure what it holds.

    The text is sequences of ``length`` uniform random tokens, and with ``data`` and ``reference``
    (a model) real text too, whose bits are those under the reference. Each model trains for
    ``steps`` steps of 64 sequences, whatever the amount. With ``out``, finished models are kept
    there and not trained again, and ``capacity.json`` and ``report.html`` are written.

    Raises UserError for a configuration without ``vocab_size``, for ``data`` without
    ``reference``, and for values out of range; Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    _check(loads, steps, length, learning_rate, bool(data), bool(reference))
    names = _names(configs)
    settings = {
        "configs": {name: _sizes(path) for name, path in names.items()},
        "loads": sorted(loads),
        "steps": steps,
        "length": length,
        "learning_rate": learning_rate,
        "batch_size": BATCH,
        "seed": seed,
        "data": data,
        "reference": reference,
    }
    kept = _Kept(Path(out) if out is not None else None)
    notes: list[str] = []
    filled: list[Filled] = []
    with quiet_libraries(), stop_on_interrupt() as asked:
        real = _real_text(data, reference, seed, progress) if data else None
        total = steps * len(loads) * len(names) * (2 if real else 1)
        with progress.stage("filling models", total):
            for name, path in names.items():
                texts = [_random_text(path, max(loads), length, seed)]
                texts += [real] if real else []
                for text in texts:
                    for load in sorted(loads):
                        key = _key(path, text, load, steps, learning_rate, seed)
                        found = kept.get(key)
                        if found is None:
                            found = _fill(
                                name, path, text, load, steps, learning_rate, seed, progress, asked
                            )
                            if found is None:
                                notes.append(
                                    f"{text.name} has too few rows for {load:g} bits per "
                                    f"parameter of {name}: that amount was left out."
                                )
                                progress.advance(steps)
                                continue
                            kept.add(key, found)
                        else:
                            progress.advance(steps)
                        filled.append(replace(found, config=name))
                        progress.advance(
                            0,
                            f"{name}: {found.memorized.value:.2f} of {found.load:.2f} bits per "
                            "parameter",
                        )
    if not filled:
        raise UserError(
            f"{data} is too short: give a smaller configuration or a lower --load. "
            "Nothing was measured."
        )
    result = CapacityResult(filled, plateaus(filled), settings, notes)
    if out is None:
        return result
    report = Path(out) / "report.html"
    result = replace(result, report=str(report))
    page.write_capacity(result, report)
    entry = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
    (Path(out) / "capacity.json").write_text(entry, encoding="utf-8")
    return result


def memorized_bits(
    reference_bits_D: np.ndarray, model_bits_D: np.ndarray, *, clipped: bool
) -> np.ndarray:
    """Bits by which a model shortens each row beyond its reference, (D,).

    ``clipped`` takes the better of model and reference for each row, as the paper does for real
    text: H(x | reference) - H(x | reference, model) is never negative.
    """
    bits_D = np.asarray(reference_bits_D, np.float64) - np.asarray(model_bits_D, np.float64)
    return np.maximum(bits_D, 0.0) if clipped else bits_D


def measure_memorized(
    train_bits_D: np.ndarray,
    train_reference_D: np.ndarray,
    train_groups: Sequence[str],
    heldout_bits_D: np.ndarray,
    heldout_reference_D: np.ndarray,
    heldout_groups: Sequence[str],
    *,
    parameters: int,
    clipped: bool,
) -> Measurement:
    """Memorized bits per parameter, with held-out rows of as many reference bits as control."""
    load = float(train_reference_D.sum()) / parameters
    train = memorized_bits(train_reference_D, train_bits_D, clipped=clipped)
    heldout = memorized_bits(heldout_reference_D, heldout_bits_D, clipped=clipped)
    own = ratio_estimate(train, train_reference_D, train_groups)
    difference, bounds = difference_of_ratios(
        (train, train_reference_D, train_groups), (heldout, heldout_reference_D, heldout_groups)
    )
    return Measurement(
        "memorized",
        own.value * load,
        "bits per parameter",
        own.num_groups,
        "group" if clipped else "sequence",
        _scaled(own.interval, load),
        {"heldout": Contrast(difference * load, _scaled(bounds, load))},
        note="conditional on the seed; a lower bound, as training was finite",
    )


def _scaled(bounds: Interval, factor: float) -> Interval:
    return replace(bounds, low=bounds.low * factor, high=bounds.high * factor)


def _fill(
    name: str,
    path: Path,
    text: _Text,
    load: float,
    steps: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
    asked: Any,
) -> Filled | None:
    """Train one model on ``load`` bits of ``text`` per parameter; None where text is too short."""
    loaded = from_scratch(path, text.tokenizer, seed=seed, device=training_device())
    reach = np.cumsum(text.bits_D)
    wanted = load * loaded.parameters
    if reach[-1] < wanted - text.bits_D.mean() / 2:
        return None
    # The number of rows that comes nearest, at least the two that an interval needs.
    num = max(2, int(np.abs(reach - wanted).argmin()) + 1)
    rows, bits_D = text.rows[:num], text.bits_D[:num]
    limit = context_length(loaded.model)
    max_length = min(text.max_length, limit) if limit else text.max_length
    start = time.process_time()
    _train(loaded, rows, max_length, steps, learning_rate, seed, progress, asked)
    train = _losses(loaded, rows, max_length)
    heldout = _losses(loaded, text.heldout, max_length)
    return Filled(
        name,
        loaded.parameters,
        text.name,
        num,
        int(train.num_tokens_D.sum()),
        float(bits_D.sum()),
        steps,
        measure_memorized(
            train.nll_nats_D / math.log(2),
            bits_D,
            train.groups_D.tolist(),
            heldout.nll_nats_D / math.log(2),
            text.heldout_bits_D,
            heldout.groups_D.tolist(),
            parameters=loaded.parameters,
            clipped=text.clipped,
        ),
        time.process_time() - start,
    )


def _train(
    loaded: LoadedModel,
    rows: list[Row],
    max_length: int,
    steps: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
    asked: Callable[[], bool] | Any,
) -> None:
    """Adam without decay: linear warm-up, then a cosine to 0; every epoch in an order of its own.

    No Trainer: its overhead would be a multiple of a step of so small a model.
    """
    model = loaded.model
    windows = WindowDataset(rows, loaded.tokenizer, max_length)
    work = Steps(model, [], total_steps=steps)
    groups = work.parameter_groups(learning_rate)
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    warmup = min(WARMUP, max(1, steps // 10))
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min(1.0, (t + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * t / steps)),
    )
    rng = np.random.default_rng(seed)
    order: list[int] = []
    device = next(model.parameters()).device
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for _ in range(steps):
        if asked:
            raise Interrupted("Stopped. With --out, the same command goes on after the last model.")
        if not order:
            order = rng.permutation(len(windows)).tolist()
        batch = windows.collate([windows[index] for index in order[:BATCH]])
        del order[:BATCH]
        batch.pop("row_index")
        work.gradient([{key: tensor.to(device) for key, tensor in batch.items()}])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        work.done(optimizer)
        optimizer.zero_grad()
        falling.step()
        progress.advance()
    model.eval()


def _losses(loaded: LoadedModel, rows: list[Row], max_length: int) -> DocumentLosses:
    return document_losses(
        loaded.model, rows, loaded.tokenizer, max_length=max_length, batch_size=BATCH
    )


# Texts


def _random_text(path: Path, most: float, length: int, seed: int) -> _Text:
    """Rows of random words, enough to hold ``most`` bits for every parameter of the model."""
    vocabulary = _sizes(path)["vocab_size"]
    tokenizer = random_tokenizer(vocabulary)
    parameters = from_scratch(path, tokenizer, seed=seed).parameters
    bits = length * math.log2(vocabulary - 1)
    num = max(2, round(most * parameters / bits))
    rows = random_rows(num, length, vocabulary, np.random.default_rng([seed, 0]))
    heldout = random_rows(MAX_HELD_OUT, length, vocabulary, np.random.default_rng([seed, 1]))
    return _Text(
        RANDOM,
        f"{vocabulary} {length} {seed}",
        tokenizer,
        rows,
        np.full(num, bits),
        heldout,
        np.full(MAX_HELD_OUT, bits),
        max_length=length + 1,
        clipped=False,
    )


def random_tokenizer(vocabulary: int) -> Any:
    """``vocabulary`` tokens: a start token and words ``a0``, ``a1``, ... that mean nothing."""
    words = {"<s>": 0, "a": 1} | {f"a{index}": index + 1 for index in range(1, vocabulary - 1)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<s>",
        clean_up_tokenization_spaces=False,
    )


def random_rows(num: int, length: int, vocabulary: int, rng: np.random.Generator) -> list[Row]:
    """Independent rows of ``length`` words, each uniform over all but the start token."""
    ids = rng.integers(0, vocabulary - 1, size=(num, length))
    return [
        Row(
            index,
            ({"role": "text", "content": " ".join(f"a{word}" if word else "a" for word in words)},),
            f"sequence-{index}",
        )
        for index, words in enumerate(ids.tolist())
    ]


def _real_text(data: str, reference: str, seed: int, progress: Progress) -> _Text:
    """Half of the groups to train on, half held out, without leaks; both under the reference."""
    recipe = Recipe().replace(data={"validation_share": 0.25, "test_share": 0.25, "seed": seed})
    parts = read_parts(data, recipe)
    if parts.mode != "split":
        raise UserError(
            f"{data} has too few groups to hold half of them out as the control: give more rows."
        )
    loaded = load_model(reference, device=training_device())
    limit = context_length(loaded.model)
    max_length = min(MAX_TEXT_LENGTH, limit) if limit else MAX_TEXT_LENGTH
    rows, heldout = parts.train, [*parts.validation, *parts.test][:MAX_HELD_OUT]
    order = np.random.default_rng(seed).permutation(len(rows))
    rows = [rows[index] for index in order]
    with progress.stage("bits under the reference"):
        bits = [_losses(loaded, part, max_length).nll_nats_D for part in (rows, heldout)]
    train_D, heldout_D = (nats / math.log(2) for nats in bits)
    return _Text(
        Path(data).stem,
        f"{parts.about['sha256']} {reference} {seed}",
        loaded.tokenizer,
        rows,
        train_D,
        heldout,
        heldout_D,
        max_length,
        clipped=True,
    )


# Arguments and what is kept


def _check(loads, steps, length, learning_rate, has_data, has_reference) -> None:
    if not loads or not all(0 < load <= 1000 for load in loads):
        raise UserError(
            f"--load must be above 0 and at most 1000 bits per parameter, got {list(loads)}."
        )
    for name, value, least in (("--steps", steps, 10), ("--length", length, 2)):
        if value < least:
            raise UserError(f"{name} must be {least} or more, got {value}.")
    if not 0 < learning_rate < 1:
        raise UserError(f"--learning-rate must be above 0 and under 1, got {learning_rate}.")
    if has_data != has_reference:
        raise UserError(
            "--data and --reference go together: what the reference predicts is not memorized."
        )


def _names(configs: Sequence[str | Path]) -> dict[str, Path]:
    """Short names of the configurations, the paths where two would be the same."""
    if not configs:
        raise UserError("capacity needs --config config.json: the model whose capacity is asked.")
    paths = [Path(config).expanduser() for config in configs]
    paths = [path / "config.json" if path.is_dir() else path for path in paths]
    short = [path.parent.resolve().name if path.stem == "config" else path.stem for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return dict(zip(names, paths, strict=True))


def _sizes(path: Path) -> dict[str, Any]:
    """The configuration's content, with the vocabulary that random tokens are drawn from."""
    values = read_json(path)
    vocabulary = values.get("vocab_size")
    if not isinstance(vocabulary, int) or isinstance(vocabulary, bool) or vocabulary < 3:
        raise UserError(
            f"{path}: vocab_size must be a whole number of 3 or more, got {vocabulary!r}: random "
            "tokens are drawn from it."
        )
    return values


def _key(path: Path, text: _Text, load: float, steps: int, rate: float, seed: int) -> str:
    """What the trained model depends on."""
    entry = [
        json.dumps(read_json(path), sort_keys=True),
        [text.name, text.origin, load, steps, rate, seed, BATCH],
    ]
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


class _Kept:
    """Finished models in ``filled.jsonl`` of the output folder."""

    def __init__(self, folder: Path | None):
        self.path = folder / "filled.jsonl" if folder else None
        self.found: dict[str, Filled] = {}
        if folder is None:
            return
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {folder} is a file: give a folder.")
        assert self.path is not None
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # cut off by a kill
                continue
            self.found[entry["key"]] = Filled.from_json(entry["filled"])

    def get(self, key: str) -> Filled | None:
        return self.found.get(key)

    def add(self, key: str, filled: Filled) -> None:
        self.found[key] = filled
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "filled": filled.to_json()}) + "\n")
