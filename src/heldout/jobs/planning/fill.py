"""One model, trained from scratch on so many bits of a text, and what it memorized of them."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from heldout.core.errors import Interrupted
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.results.capacity import Filled
from heldout.core.row import Row
from heldout.jobs.planning.capacity_texts import BATCH, FillText
from heldout.jobs.planning.memorized_bits import measure_memorized
from heldout.lm.accelerator import training_device
from heldout.lm.load import LoadedModel, from_scratch
from heldout.lm.nll import context_length, document_losses
from heldout.lm.source import read_json
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

WARMUP = 100  # steps


@dataclass(frozen=True)
class FillTraining:
    """How every model is trained, whatever the amount of text."""

    steps: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Filling:
    """A configuration to train on ``load`` bits of ``text`` per parameter."""

    name: str  # of the configuration
    config: Path
    text: FillText
    load: float
    training: FillTraining

    def key(self) -> str:
        """What the trained model depends on."""
        how = self.training
        entry = [
            json.dumps(read_json(self.config), sort_keys=True),
            [
                self.text.name,
                self.text.origin,
                self.load,
                how.steps,
                how.learning_rate,
                how.seed,
                BATCH,
            ],
        ]
        return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


def fill(filling: Filling, progress: Progress, should_stop: Callable[[], bool]) -> Filled | None:
    """Train one model and measure it; None where the text is too short. Raises Interrupted."""
    text, how = filling.text, filling.training
    loaded = from_scratch(filling.config, text.tokenizer, seed=how.seed, device=training_device())
    reach = np.cumsum(text.bits_D)
    wanted = filling.load * loaded.parameters
    if reach[-1] < wanted - text.bits_D.mean() / 2:
        return None
    # The number of rows that comes nearest, at least the two that an interval needs.
    num = max(2, int(np.abs(reach - wanted).argmin()) + 1)
    rows, bits_D = text.rows[:num], text.bits_D[:num]
    limit = context_length(loaded.model)
    max_length = min(text.max_length, limit) if limit else text.max_length
    start = time.process_time()
    _train(loaded, rows, max_length, how, progress, should_stop)
    train = _losses(loaded, rows, max_length)
    heldout = _losses(loaded, text.heldout, max_length)
    return Filled(
        filling.name,
        loaded.parameters,
        text.name,
        num,
        int(train.num_tokens_D.sum()),
        float(bits_D.sum()),
        how.steps,
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
    how: FillTraining,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> None:
    """Adam without decay: linear warm-up, then a cosine to 0; every epoch in an order of its own.

    No Trainer: its overhead would be a multiple of a step of so small a model.
    """
    model, steps = loaded.model, how.steps
    windows = WindowDataset(rows, loaded.tokenizer, max_length)
    work = Steps(model, [], total_steps=steps)
    groups = work.parameter_groups(how.learning_rate)
    optimizer = torch.optim.AdamW(groups, lr=how.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    warmup = min(WARMUP, max(1, steps // 10))
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min(1.0, (t + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * t / steps)),
    )
    rng = np.random.default_rng(how.seed)
    order: list[int] = []
    device = next(model.parameters()).device
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for _ in range(steps):
        if should_stop():
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


class FilledModels:
    """Finished models in ``filled.jsonl`` of the output folder."""

    def __init__(self, folder: Path | None):
        self.path = folder / "filled.jsonl" if folder else None
        self.found: dict[str, Filled] = {}
        if folder is None:
            return
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
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "filled": filled.to_json()}) + "\n")
