"""How far a model compresses a data set when it learns from nothing but what it has decoded.

The prequential code (Dawid 1984): blocks of documents, each twice as long as all before it; every
block is coded by a model that was trained on the earlier ones, so the sum of the code lengths
needs no weights to be sent (Blier and Ollivier 2018, arXiv 1802.07044). What it saves against the
base model is structure that documents share. What training saves on text that was seen, beyond
what it saves on text that was not, is rote. The same documents with their words shuffled are the
control: what is learned of these is the words, not their order.
"""

# D documents, K blocks

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from heldout.core.compression import Block, CompressResult, TwoPart
from heldout.core.errors import Interrupted, TrainingDiverged, UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.regularizer import Continue, Decision, Evaluation, RollBack, Stop, moments_used
from heldout.core.row import Row
from heldout.core.stats import difference_of_ratios, paired_difference, ratio_estimate
from heldout.data.columns import read_rows
from heldout.jobs.arms import Target, losses_of, prepare, regularizers_of
from heldout.jobs.compressors import General, general_compressors, utf8
from heldout.jobs.two_part import two_part_codes
from heldout.lm.quiet import quiet_libraries
from heldout.lm.special_tokens import special_prefix
from heldout.lm.tokenize import tokenize_row
from heldout.lm.weights import copies, trained_parameters, weights_replaced
from heldout.report import compress as page
from heldout.search.learning_rate import start_learning_rate
from heldout.training.loop import Schedule, train
from heldout.training.steps import evaluation_weights
from heldout.training.windows import WindowDataset

Strategy = Literal["restart", "continue"]


@dataclass(frozen=True)
class _Documents:
    """The documents in the order in which they are coded, with the ends of the blocks."""

    rows: list[Row]
    num_tokens_D: np.ndarray  # with the first one and the end
    unscored_D: np.ndarray  # leading tokens that have no predecessor: coded uniformly
    num_bytes_D: np.ndarray
    groups_D: np.ndarray
    ends: list[int]

    def span(self, block: int) -> slice:
        return slice(self.ends[block - 1] if block else 0, self.ends[block])


@dataclass(frozen=True)
class _Coded:
    """One order of words, coded block by block."""

    bits_D: np.ndarray
    start_D: np.ndarray
    seen_D: np.ndarray  # last block but one, under the model that codes the last
    checkpoints: list[int]
    epochs: list[float]
    name_bits: list[float]


def compress(
    data: str,
    *,
    model: str,
    from_scratch: str = "",
    recipe: str | Path | Recipe = "",
    settings: Sequence[str] = (),
    strategy: Strategy = "restart",
    blocks: int = 7,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> CompressResult:
    """Code lengths of ``data`` under ``model`` as it learns from it, and what they say.

    model: what ``heldout fit`` takes; with ``from_scratch``, a config.json, it names the tokenizer.
    recipe: how each model is trained; default ``default``, from scratch ``full``. Its checkpoints
    are the candidates for a block, which names the one that codes it.
    strategy: each block's model is trained from the start again, or goes on from the last.
    blocks: the first holds 1/2^(blocks - 1) of the tokens, every other one as many as all before.
    out: folder for ``compress.json`` and ``report.html``; the same call goes on there.

    Costs about two trainings on all of the data, and as much again for the control. Raises
    UserError for what cannot be coded, Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    if strategy not in ("restart", "continue"):
        raise UserError(f"--strategy must be restart or continue, got {strategy!r}.")
    if blocks < 2:
        raise UserError(f"--blocks must be 2 or more, got {blocks}.")
    chosen = _chosen(recipe, settings, from_scratch)
    target = Target.of(model, from_scratch)
    read = read_rows(data, chosen.data.columns, chosen.data.group)
    about = {
        "data": data,
        "sha256": read.sha256,
        "model": target.model,
        "from_scratch": _digest(target.from_scratch),
        "recipe": chosen.to_toml(),
        "strategy": strategy,
        "blocks": blocks,
    }
    with quiet_libraries(), stop_on_interrupt() as asked, _folder(out) as place:
        folder = Path(place)
        coder = _Coder(target, chosen, strategy, folder / "blocks", progress, asked)
        rows = [_as_text(row) for row in read.rows]
        if chosen.data.max_rows:
            rows = rows[: chosen.data.max_rows]
        real = coder.documents(rows, blocks)
        shuffled = coder.documents(
            [_shuffled(row, chosen.data.seed) for row in real.rows], blocks, ends=real.ends
        )
        _claim(folder, about)
        total = 2 * coder.planned(real) + coder.planned(shuffled)
        with progress.stage("coding", total):
            coded = coder.code(real, "as it is")
            control = coder.code(shuffled, "words shuffled")
            two_part = coder.two_part(real, coded)
        general, missing = general_compressors([row.text for row in real.rows], real.ends)
        result = _result(real, shuffled, coded, control, two_part, general, missing, coder, about)
        if out is None:
            return result
        result = replace(result, report=str(folder / "report.html"))
        page.write_compress(result, folder / "report.html")
        text = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
        _write(folder / "compress.json", text)
        return result


# The prequential code


class _Coder:
    """Trains one model for each block, keeping what is done in a folder."""

    def __init__(self, target, recipe, strategy, folder, progress, asked):
        self.target: Target = target
        self.recipe: Recipe = recipe
        self.strategy = strategy
        self.folder: Path = folder
        self.progress: Progress = progress
        self.asked = asked
        loaded = target.load(recipe)
        self.tokenizer = loaded.tokenizer
        self.vocabulary = len(loaded.tokenizer)
        self.is_scratch = bool(target.from_scratch)
        self.model = prepare(loaded, recipe, is_scratch=self.is_scratch)
        self.start = copies(trained_parameters(self.model))
        self.num_trained = sum(value.numel() for value in self.start.values())
        self.rate = recipe.train.learning_rate or start_learning_rate(
            recipe.model.method, loaded.parameters
        )

    def documents(self, rows: list[Row], blocks: int, ends: list[int] | None = None) -> _Documents:
        """Whole groups in an order of the seed, cut into blocks; ``ends`` keeps order and cut."""
        if ends is None:
            names = sorted({row.group for row in rows})
            rank = np.random.default_rng(self.recipe.data.seed).permutation(len(names))
            place = dict(zip(names, rank.tolist(), strict=True))
            rows = sorted(rows, key=lambda row: (place[row.group], row.index))
        tokenized = [tokenize_row(row, self.tokenizer, self.recipe.data.max_length) for row in rows]
        num_bytes_D = np.array([len(utf8(row.text)) for row in rows])
        # Without a start token the first token of a text has no predecessor and is not scored.
        unscored_D = np.full(len(rows), 0 if special_prefix(self.tokenizer) else 1)
        groups_D = np.array([row.group for row in rows], dtype=str)
        num_tokens_D = np.array([each.num_tokens for each in tokenized]) + unscored_D
        if ends is None:
            ends = block_ends(num_tokens_D, groups_D, blocks)
        return _Documents(rows, num_tokens_D, unscored_D, num_bytes_D, groups_D, ends)

    def planned(self, documents: _Documents) -> int:
        """Optimizer steps at most, for progress."""
        return sum(self._schedule(documents.rows[:end])[1].max_steps for end in documents.ends[:-1])

    def code(self, documents: _Documents, name: str) -> _Coded:
        """Bits of each document, block after block."""
        start_D = self._start_bits(documents, name)
        bits_D = start_D.copy()
        checkpoints, epochs, name_bits = [0], [0.0], [0.0]
        seen_D = np.zeros(0)
        for block in range(1, len(documents.ends)):
            kept = self.folder / f"{_slug(name)}-{block}.npz"
            if not kept.exists():
                self._code_block(documents, start_D, block, name, kept)
            else:
                _, schedule = self._schedule(documents.rows[: documents.ends[block - 1]])
                self.progress.advance(schedule.max_steps)
            with np.load(kept, allow_pickle=False) as found:
                span = documents.span(block)
                name_bits.append(math.log2(int(found["candidates"])))
                share_D = documents.num_bytes_D[span] / documents.num_bytes_D[span].sum()
                bits_D[span] = found["bits"] + name_bits[-1] * share_D
                seen_D = found["seen"]
                checkpoints.append(int(found["checkpoint"]))
                epochs.append(float(found["epochs"]))
            told = bits_D[span].sum() / documents.num_bytes_D[span].sum()
            self.progress.advance(
                0, f"{name}, block {block + 1} of {len(documents.ends)}: {told:.3f} bits per byte"
            )
        return _Coded(bits_D, start_D, seen_D, checkpoints, epochs, name_bits)

    def two_part(self, documents: _Documents, coded: _Coded) -> list[TwoPart]:
        """Codes of the weights after training on everything, as long as for the last block."""
        kept = self.folder / "two-part.json"
        if not kept.exists():
            self._restore("", 0)
            windows, full = self._schedule(documents.rows)
            steps = max(1, round(full.steps_per_epoch * (coded.epochs[-1] or 1.0)))
            regularizers = regularizers_of(self.recipe)
            schedule = replace(full, max_steps=steps)
            self._train(windows, schedule, regularizers, lambda *_: (Continue(), {}))
            with evaluation_weights(self.model, regularizers):
                found = two_part_codes(
                    self.model,
                    self.start,
                    lambda: float(self._bits(documents, slice(None)).sum()),
                    num_samples=int(documents.num_tokens_D.sum()),
                )
            _write(kept, json.dumps([vars(each) for each in found]))
        return [TwoPart(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]

    def _start_bits(self, documents: _Documents, name: str) -> np.ndarray:
        if self.is_scratch:
            return documents.num_tokens_D * math.log2(self.vocabulary)
        kept = self.folder / f"{_slug(name)}-0.npy"
        if not kept.exists():
            self._restore(name, 0)
            partial = kept.with_suffix(".partial.npy")
            np.save(partial, self._bits(documents, slice(None)))
            partial.replace(kept)
        return np.load(kept, allow_pickle=False)

    def _code_block(
        self, documents: _Documents, start_D: np.ndarray, block: int, name: str, kept: Path
    ) -> None:
        """Train on the blocks before ``block``; keep its bits under the best checkpoint."""
        earlier = block - 1 if self.strategy == "continue" else 0
        self._restore(name, earlier)
        span, last = documents.span(block), block == len(documents.ends) - 1
        windows, schedule = self._schedule(documents.rows[: span.start])
        regularizers = regularizers_of(self.recipe)
        first = self._bits(documents, span) if earlier else start_D[span]
        tried = [first]
        steps = [0]
        best = copies(trained_parameters(self.model))
        history: list[Evaluation] = []

        def evaluate(step: int, epoch: float, *_: float) -> tuple[Decision, dict[str, float]]:
            nonlocal best
            with evaluation_weights(self.model, regularizers):
                losses = losses_of(self.model, self.tokenizer, documents.rows[span], self.recipe)
                bits = self._with_unscored(losses.nll_nats_D, documents, span)
                if bits.sum() < min(each.sum() for each in tried):
                    best = copies(trained_parameters(self.model))
            tried.append(bits)
            steps.append(step)
            history.append(Evaluation(step, epoch, losses))
            return self._decision(regularizers, history), {}

        try:
            self._train(windows, schedule, regularizers, evaluate)
        except TrainingDiverged as error:
            self.progress.note(f"block {block + 1}: an earlier checkpoint codes it. {error}")
        checkpoint = int(np.argmin([bits.sum() for bits in tried]))
        candidates = 1 + sum(
            schedule.evaluates_at(step) for step in range(1, schedule.max_steps + 1)
        )
        seen_D = np.zeros(0)
        if last:
            with weights_replaced(self.model, best):
                before = documents.span(block - 1)
                seen_D = (
                    start_D[before]
                    if not checkpoint and not earlier
                    else self._bits(documents, before)
                )
        if self.strategy == "continue":
            partial = self._weights(name, block).with_suffix(".partial")
            save_file({key: value.cpu().contiguous() for key, value in best.items()}, partial)
            partial.replace(self._weights(name, block))
        partial = kept.with_suffix(".partial.npz")
        np.savez(
            partial,
            bits=tried[checkpoint],
            seen=seen_D,
            checkpoint=checkpoint,
            epochs=steps[checkpoint] / schedule.steps_per_epoch,
            candidates=candidates,
        )
        partial.replace(kept)
        self._weights(name, block - 1).unlink(missing_ok=True)

    def _train(self, windows: WindowDataset, schedule: Schedule, regularizers, evaluate) -> None:
        steps = _Steps(self.progress)
        with tempfile.TemporaryDirectory() as scratch:
            outcome = train(
                self.model,
                windows,
                self.recipe.replace(train={"report_to": ()}),
                regularizers,
                learning_rate=self.rate,
                schedule=schedule,
                folder=Path(scratch),
                on_evaluate=evaluate,
                checkpoints=False,
                should_stop=lambda: bool(self.asked),
                progress=steps,
            )
        if outcome.interrupted:
            raise Interrupted("Stopped. With --out, the same command goes on after the last block.")
        self.progress.advance(schedule.max_steps - steps.done)  # where training ended early

    def _decision(self, regularizers, history: list[Evaluation]) -> Decision:
        for regularizer in regularizers:
            decision = regularizer.decide(history)
            if isinstance(decision, RollBack):
                raise UserError(
                    f"{type(regularizer).__name__} goes back by the loss of the block, which is "
                    "not known when it is decoded: leave it out of the recipe."
                )
            if isinstance(decision, Stop):
                return decision
        return Continue()

    def _schedule(self, rows: list[Row]) -> tuple[WindowDataset, Schedule]:
        windows = WindowDataset(rows, self.tokenizer, self.recipe.data.max_length)
        return windows, Schedule.of(len(windows), self.recipe)

    def _bits(self, documents: _Documents, span: slice) -> np.ndarray:
        """Under the model as it is now."""
        losses = losses_of(self.model, self.tokenizer, documents.rows[span], self.recipe)
        return self._with_unscored(losses.nll_nats_D, documents, span)

    def _with_unscored(self, nats_D, documents: _Documents, span: slice) -> np.ndarray:
        return nats_D / math.log(2) + documents.unscored_D[span] * math.log2(self.vocabulary)

    def _weights(self, name: str, block: int) -> Path:
        return self.folder / f"{_slug(name)}-{block}.safetensors"

    def _restore(self, name: str, block: int) -> None:
        """The weights that coded ``block``; of block 0 the start's."""
        values = load_file(self._weights(name, block)) if block else self.start
        with torch.no_grad():
            for key, parameter in trained_parameters(self.model).items():
                parameter.copy_(values[key])


class _Steps(Progress):
    """Passes steps on and counts them."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.done = 0

    def advance(self, num: int = 1, text: str = "") -> None:
        self.done += num
        self.progress.advance(num, text)


def block_ends(num_tokens_D: np.ndarray, groups_D: np.ndarray, blocks: int) -> list[int]:
    """Where blocks end, doubling in tokens: the last is half of all; groups stay whole.

    Fewer than ``blocks`` where groups are too few or too long; raises UserError for less than two.
    """
    bounds_G = np.flatnonzero(np.append(groups_D[1:] != groups_D[:-1], True)) + 1
    reach_G = np.cumsum(num_tokens_D)[bounds_G - 1]
    ends: list[int] = []
    for doubling in range(blocks - 1, -1, -1):
        near = int(np.abs(reach_G - reach_G[-1] / 2**doubling).argmin())
        if not ends or bounds_G[near] > ends[-1]:
            ends.append(int(bounds_G[near]))
    if len(ends) < 2:
        raise UserError(
            "compress needs two groups of documents or more, of like size: with data.group every "
            "value is one, without it every row."
        )
    return ends


# What follows


def _result(
    real, shuffled, coded, control, two_part, general, missing, coder, about
) -> CompressResult:
    num_bytes = int(real.num_bytes_D.sum())
    start_code = "uniform" if coder.is_scratch else "base"
    blocks = _blocks(real, coded, {each.name: each.block_bits for each in general})
    measurements: list[Measurement | NotMeasured] = [
        _prequential(real, coded, control, start_code, general),
        _measured(start_code, coded.start_D, real, note="nothing learned from the data"),
        _structure(real, coded, control),
        _rote(real, coded, control),
        _order(real, coded, control),
        *(_general(each, real, num_bytes) for each in general),
        *missing,
    ]
    by_name = {each.name: each for each in measurements}
    notes = [
        "Intervals are over "
        f"{_unit(real)}s, given this order of the documents and this seed: another order gives "
        "other blocks.",
        "Near duplicates in different blocks count as structure: `heldout check` finds them.",
    ]
    if start_code == "base":
        notes.append("The bits of the base model's own weights are not counted: it is given.")
    best = min(two_part, key=lambda each: each.bits)
    if best.bits > coded.bits_D.sum():
        notes.append(
            f"The shortest two-part code ({best.prior}) is {best.bits / coded.bits_D.sum():.1f} "
            "times as long as the prequential one: the weights cost more than they save."
        )
    return CompressResult(
        data=about["data"],
        sha256=about["sha256"],
        model=about["model"] if not coder.is_scratch else "from scratch",
        start_code=start_code,
        num_documents=len(real.rows),
        num_groups=len(np.unique(real.groups_D)),
        num_tokens=int(real.num_tokens_D.sum()),
        num_bytes=num_bytes,
        trained_parameters=coder.num_trained,
        blocks=blocks,
        shuffled_blocks=_blocks(shuffled, control, {}),
        two_part=two_part,
        measurements=measurements,
        headline=_headline(by_name, start_code),
        notes=notes,
        settings={**about, "learning_rate": coder.rate},
    )


def _headline(found: Mapping[str, Measurement | NotMeasured], start_code: str) -> str:
    code = found["prequential"]
    assert isinstance(code, Measurement)
    start = "a uniform code" if start_code == "uniform" else "the base model"
    others = [each for each in found.values() if each.name in ("zlib", "xz", "zstd")]
    best = min((e for e in others if isinstance(e, Measurement)), key=lambda each: each.value)
    words = (
        f"{code.value:.3f} bits per byte, {best.name} needs {best.value:.3f} and {start} "
        f"{found[start_code].value:.3f}."  # type: ignore[union-attr]
    )
    structure, rote = found["structure"], found["rote"]
    if isinstance(structure, Measurement):
        words += (
            f" What documents share saves {structure.value:.3f} bits per byte of new text "
            f"({_shown(structure.interval)})"
        )
        if isinstance(rote, Measurement):
            words += (
                f"; text that was seen is shorter by {rote.value:.3f} more "
                f"({_shown(rote.interval)}), which is rote"
            )
        words += "."
    return words


def _shown(bounds: Interval | None) -> str:
    return f"{bounds.low:.3f} to {bounds.high:.3f}" if bounds else "no interval"


def _blocks(documents: _Documents, coded: _Coded, compressors: dict[str, list[float]]):
    blocks = []
    for number in range(len(documents.ends)):
        span = documents.span(number)
        groups = documents.groups_D[span]
        bounds = None
        if len(np.unique(groups)) >= 2:
            num_bytes_D = documents.num_bytes_D[span]
            bounds = ratio_estimate(coded.bits_D[span], num_bytes_D, groups).interval
        blocks.append(
            Block(
                span.stop - span.start,
                int(documents.num_tokens_D[span].sum()),
                int(documents.num_bytes_D[span].sum()),
                float(coded.bits_D[span].sum()),
                float(coded.start_D[span].sum()),
                coded.checkpoints[number],
                coded.epochs[number],
                coded.name_bits[number],
                {name: bits[number] for name, bits in compressors.items()},
                bounds,
            )
        )
    return blocks


def _unit(documents: _Documents) -> str:
    return "document" if len(np.unique(documents.groups_D)) == len(documents.rows) else "group"


def _measured(name, bits_D, documents: _Documents, *, contrasts=None, note="") -> Measurement:
    found = ratio_estimate(bits_D, documents.num_bytes_D, documents.groups_D)
    return Measurement(
        name,
        found.value,
        "bits per byte",
        found.num_groups,
        _unit(documents),
        found.interval,
        contrasts or {},
        note,
    )


def _paired(values_D, control_D, documents: _Documents) -> Contrast:
    return paired_difference(
        values_D, control_D, documents.num_bytes_D, documents.groups_D
    ).as_contrast()


def _prequential(real, coded, control, start_code, general) -> Measurement:
    contrasts = {
        start_code: _paired(coded.bits_D, coded.start_D, real),
        "shuffled": _paired(coded.bits_D, control.bits_D, real),
    }
    for each in general:
        if each.document_bits_D is not None:
            contrasts[each.name] = _paired(coded.bits_D, each.document_bits_D, real)
    return _measured("prequential", coded.bits_D, real, contrasts=contrasts)


def _structure(real, coded, control) -> Measurement | NotMeasured:
    """What training on other documents saves on one that was not seen."""
    span = slice(real.ends[0], None)
    part = _part(real, span)
    if len(np.unique(part.groups_D)) < 2:
        return NotMeasured("structure", "only one group comes after the first block")
    saved_D = (coded.start_D - coded.bits_D)[span]
    same_D = (control.start_D - control.bits_D)[span]
    return _measured(
        "structure",
        saved_D,
        part,
        contrasts={"shuffled": _paired(saved_D, same_D, part)},
        note="saved on unseen documents, of all blocks after the first",
    )


def _rote(real, coded, control) -> Measurement | NotMeasured:
    """What training saves on documents that were seen, beyond what it saves on unseen ones."""
    number = len(real.ends) - 1
    seen, unseen = real.span(number - 1), real.span(number)
    sides = [_part(real, span) for span in (seen, unseen)]
    fewest = min(len(np.unique(each.groups_D)) for each in sides)
    if fewest < 2:
        return NotMeasured("rote", "each of the last two blocks needs two groups or more")

    def saved(part: _Coded) -> tuple[np.ndarray, np.ndarray]:
        return part.start_D[seen] - part.seen_D, part.start_D[unseen] - part.bits_D[unseen]

    def gap(values: Sequence[np.ndarray]) -> tuple[float, Interval]:
        first, second = (
            (value_D, side.num_bytes_D, side.groups_D)
            for value_D, side in zip(values, sides, strict=True)
        )
        return difference_of_ratios(first, second)

    value, bounds = gap(saved(coded))
    pairs = zip(saved(coded), saved(control), strict=True)
    difference, around = gap([own - other for own, other in pairs])
    return Measurement(
        "rote",
        value,
        "bits per byte",
        fewest,
        _unit(real),
        bounds,
        {"shuffled": Contrast(difference, around)},
        "saved on the last block that was trained on, minus saved on the last block, which was not",
    )


def _order(real, coded, control) -> Measurement:
    found = _paired(control.bits_D, coded.bits_D, real)
    return Measurement(
        "word_order",
        found.difference,
        "bits per byte",
        len(np.unique(real.groups_D)),
        _unit(real),
        found.interval,
        note="by which the words of a document in random order are longer",
    )


def _general(each: General, documents: _Documents, num_bytes: int) -> Measurement:
    if each.document_bits_D is not None:
        return _measured(each.name, each.document_bits_D, documents, note=each.settings)
    return Measurement(
        each.name,
        each.bits / num_bytes,
        "bits per byte",
        len(np.unique(documents.groups_D)),
        "data set",
        note=f"{each.settings}; one stream, so there is no interval over documents",
    )


def _part(documents: _Documents, span: slice) -> _Documents:
    return _Documents(
        documents.rows[span],
        documents.num_tokens_D[span],
        documents.unscored_D[span],
        documents.num_bytes_D[span],
        documents.groups_D[span],
        [],
    )


# Arguments, texts, folders


def _chosen(recipe, settings: Sequence[str], from_scratch: str) -> Recipe:
    if isinstance(recipe, Recipe):
        chosen = recipe
    else:
        chosen = load_recipe(recipe or ("full" if from_scratch else "default"), settings)
    if from_scratch and chosen.model.method != "full":
        raise UserError(
            "--from-scratch trains all parameters: use --recipe full, or --set model.method=full."
        )
    if chosen.augment:
        raise UserError(
            "compress codes the rows as they are: leave the recipe's [augment] out, got "
            f"{', '.join(chosen.augment)}."
        )
    for name, regularizer in zip(chosen.regularizers, regularizers_of(chosen), strict=True):
        if moments_used(regularizer, "finish"):
            raise UserError(
                f"{name} chooses by a held-out loss after training, and compress holds nothing "
                f"out: leave it out with --set regularizers.{name}=false."
            )
    return chosen


def _as_text(row: Row) -> Row:
    """Prompts are coded too, so that every code is of the same bytes."""
    return replace(row, messages=({"role": "text", "content": row.text},))


def _shuffled(row: Row, seed: int) -> Row:
    """The same words and the same space between them, the words in random order."""
    pieces = re.findall(r"\s+|\S+", row.text)
    places = [index for index, piece in enumerate(pieces) if not piece.isspace()]
    order = np.random.default_rng([seed, row.index]).permutation(len(places))
    mixed = list(pieces)
    for place, other in zip(places, order, strict=True):
        mixed[place] = pieces[places[other]]
    return replace(row, messages=({"role": "text", "content": "".join(mixed)},))


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else path


def _folder(out: str | Path | None):
    """The folder of the result, or one that is removed afterwards."""
    return tempfile.TemporaryDirectory() if out is None else nullcontext(str(out))


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Start in an empty folder, or go on in one of the same arguments."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file: give a folder.")
    known = folder / "settings.json"
    if known.exists():
        if json.loads(known.read_text(encoding="utf-8")) != about:
            raise UserError(
                f"--out {folder} holds code lengths of other data or settings: give another "
                "folder. Nothing was written."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--out {folder} holds other files: give another folder.")
    (folder / "blocks").mkdir(parents=True)
    _write(known, json.dumps(about, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
