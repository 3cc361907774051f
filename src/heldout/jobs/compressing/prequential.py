"""The prequential code of documents: each block is coded by a model that learned from those before.

Every block has several candidates, the checkpoints of one training, and names the one that codes
it. Finished blocks are kept, so that a coding that was killed goes on.
"""

# D documents, K blocks

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from heldout.core.errors import Interrupted, TrainingDiverged, UserError
from heldout.core.files import write_text, written_whole
from heldout.core.interrupt import StopRequest
from heldout.core.lock import scratch_folder
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision, Evaluation, Regularizer, RollBack, Stop
from heldout.core.results.compression import TwoPart
from heldout.core.row import Row
from heldout.jobs.compressing.compressors import utf8
from heldout.jobs.compressing.two_part import two_part_codes
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.prepare import prepare, regularizers_of
from heldout.jobs.kit.target import Target
from heldout.lm.special_tokens import special_prefix
from heldout.lm.tokenize import tokenize_rows
from heldout.lm.weights import copies, trained_parameters, weights_replaced
from heldout.search.learning_rate import start_learning_rate
from heldout.training.better_weights import averages, better_weights
from heldout.training.loop import Schedule, Training, train
from heldout.training.steps import evaluation_weights
from heldout.training.windows import WindowDataset

Strategy = Literal["restart", "continue"]


@dataclass(frozen=True)
class Documents:
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
class Coded:
    """One order of words, coded block by block."""

    bits_D: np.ndarray
    start_D: np.ndarray
    seen_D: np.ndarray  # last block but one, under the model that codes the last
    checkpoints: list[int]
    epochs: list[float]
    name_bits: list[float]


class Coder:
    """Trains one model for each block, keeping what is done in a folder."""

    def __init__(
        self,
        target: Target,
        recipe: Recipe,
        strategy: Strategy,
        folder: Path,
        progress: Progress,
        asked: StopRequest,
    ) -> None:
        self.target = target
        self.recipe = recipe
        self.strategy = strategy
        self.folder = folder
        self.progress = progress
        self.asked = asked
        loaded = target.load(recipe)
        self.tokenizer = loaded.tokenizer
        self.vocabulary = len(loaded.tokenizer)
        self.is_scratch = bool(target.from_scratch)
        self.model = prepare(loaded, recipe, is_scratch=self.is_scratch)
        self.start = copies(trained_parameters(self.model))
        self.num_trained = sum(value.numel() for value in self.start.values())
        self.rate = recipe.train.learning_rate or start_learning_rate(
            recipe.model.method, loaded.parameters, from_scratch=self.is_scratch
        )

    def documents(self, rows: list[Row], blocks: int, ends: list[int] | None = None) -> Documents:
        """Whole groups in an order of the seed, cut into blocks; ``ends`` keeps order and cut."""
        if ends is None:
            names = sorted({row.group for row in rows})
            rank = np.random.default_rng(self.recipe.data.seed).permutation(len(names))
            place = dict(zip(names, rank.tolist(), strict=True))
            rows = sorted(rows, key=lambda row: (place[row.group], row.index))
        tokenized = tokenize_rows(rows, self.tokenizer, self.recipe.data.max_length)
        num_bytes_D = np.array([len(utf8(row.text)) for row in rows])
        # Without a start token the first token of a text has no predecessor and is not scored.
        unscored_D = np.full(len(rows), 0 if special_prefix(self.tokenizer) else 1)
        groups_D = np.array([row.group for row in rows], dtype=str)
        num_tokens_D = np.array([each.num_tokens for _, each in tokenized]) + unscored_D
        if ends is None:
            ends = block_ends(num_tokens_D, groups_D, blocks)
        return Documents(rows, num_tokens_D, unscored_D, num_bytes_D, groups_D, ends)

    def planned(self, documents: Documents) -> int:
        """Optimizer steps at most, for progress."""
        return sum(self._schedule(documents.rows[:end])[1].max_steps for end in documents.ends[:-1])

    def code(self, documents: Documents, name: str) -> Coded:
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
        return Coded(bits_D, start_D, seen_D, checkpoints, epochs, name_bits)

    def two_part(self, documents: Documents, coded: Coded) -> list[TwoPart]:
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
            write_text(kept, json.dumps([vars(each) for each in found]))
        return [TwoPart(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]

    def _start_bits(self, documents: Documents, name: str) -> np.ndarray:
        if self.is_scratch:
            return documents.num_tokens_D * math.log2(self.vocabulary)
        kept = self.folder / f"{_slug(name)}-0.npy"
        if not kept.exists():
            self._restore(name, 0)
            with written_whole(kept) as partial:
                np.save(partial, self._bits(documents, slice(None)))
        return np.load(kept, allow_pickle=False)

    def _code_block(
        self, documents: Documents, start_D: np.ndarray, block: int, name: str, kept: Path
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

        def measure() -> DocumentLosses:
            return losses_of(self.model, self.tokenizer, documents.rows[span], self.recipe)

        def evaluate(step: int, epoch: float, *_: float) -> tuple[Decision, dict[str, float]]:
            nonlocal best
            with better_weights(self.model, regularizers, measure, step, epoch) as found:
                nats_D = found.validation.nll_nats_D
                bits = self._with_unscored(nats_D, documents, span)
                if bits.sum() < min(each.sum() for each in tried):
                    best = copies(trained_parameters(self.model))
            tried.append(bits)
            steps.append(step)
            history.append(found)
            return self._decision(regularizers, history), {}

        try:
            self._train(windows, schedule, regularizers, evaluate)
        except TrainingDiverged as error:
            self.progress.note(f"block {block + 1}: an earlier checkpoint codes it. {error}")
        checkpoint = int(np.argmin([bits.sum() for bits in tried]))
        num = sum(schedule.evaluates_at(step) for step in range(1, schedule.max_steps + 1))
        candidates = 1 + num * (2 if averages(regularizers) else 1)
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
            with written_whole(self._weights(name, block)) as partial:
                save_file({key: value.cpu().contiguous() for key, value in best.items()}, partial)
        with written_whole(kept) as partial:
            np.savez(
                partial,
                bits=tried[checkpoint],
                seen=seen_D,
                checkpoint=checkpoint,
                epochs=steps[checkpoint] / schedule.steps_per_epoch,
                candidates=candidates,
            )
        self._weights(name, block - 1).unlink(missing_ok=True)

    def _train(
        self,
        windows: WindowDataset,
        schedule: Schedule,
        regularizers: Sequence[Regularizer],
        evaluate: Callable[..., tuple[Decision, dict[str, float]]],
    ) -> None:
        steps = _CountedProgress(self.progress)
        with scratch_folder("heldout-train-") as scratch:
            training = Training(
                self.model,
                windows,
                self.recipe.replace(train={"report_to": ()}),
                regularizers,
                self.rate,
                schedule,
                scratch,
            )
            outcome = train(
                training,
                on_evaluate=evaluate,
                checkpoints=False,
                should_stop=lambda: bool(self.asked),
                progress=steps,
            )
        if outcome.interrupted:
            raise Interrupted("Stopped. With --out, the same command goes on after the last block.")
        self.progress.advance(schedule.max_steps - steps.done)  # where training ended early

    def _decision(self, regularizers: Sequence[Regularizer], history: list[Evaluation]) -> Decision:
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

    def _bits(self, documents: Documents, span: slice) -> np.ndarray:
        """Under the model as it is now."""
        losses = losses_of(self.model, self.tokenizer, documents.rows[span], self.recipe)
        return self._with_unscored(losses.nll_nats_D, documents, span)

    def _with_unscored(self, nats_D: np.ndarray, documents: Documents, span: slice) -> np.ndarray:
        return nats_D / math.log(2) + documents.unscored_D[span] * math.log2(self.vocabulary)

    def _weights(self, name: str, block: int) -> Path:
        return self.folder / f"{_slug(name)}-{block}.safetensors"

    def _restore(self, name: str, block: int) -> None:
        """The weights that coded ``block``; of block 0 the start's."""
        values = load_file(self._weights(name, block)) if block else self.start
        with torch.no_grad():
            for key, parameter in trained_parameters(self.model).items():
                parameter.copy_(values[key])


class _CountedProgress(Progress):
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


def _slug(name: str) -> str:
    return name.replace(" ", "-")
