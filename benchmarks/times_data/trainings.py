"""One training: a trunk at a constant rate, kept at some steps, and a fall from there."""

import math
import random
import sys
from functools import cached_property
from pathlib import Path

import torch
from times_data.settings import (
    BATCH,
    EMA,
    EPOCHS,
    FALL,
    FOLDER,
    LENGTH,
    PASSAGES,
    VOCABULARY,
    WARMUP,
    Setting,
)
from times_data.speeches import Data
from transformers import LlamaConfig, LlamaForCausalLM

from heldout.core.discovery import build
from heldout.lm.weights import copies, trained_parameters
from heldout.training.steps import Steps

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "pretrain_demo_model"))
from corpus import pack

HEAD_WIDTH = 32


def new_model(width: int, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=2,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=width // HEAD_WIDTH,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def regularizers_of(setting: Setting) -> list:
    found = []
    if setting.decay:
        found.append(build("regularizer", "weight_decay", {"rate": setting.decay}))
    if setting.dropout:
        found.append(build("regularizer", "dropout", {"hidden": setting.dropout}))
    if setting.treated:
        found.append(build("regularizer", "ema", EMA))
    return found


class Training:
    """A model that can be put at any step of its trunk and brought to an end from there."""

    def __init__(self, setting: Setting, data: Data, more_regularizers=()):
        self.setting = setting
        self.documents = data.train[: setting.times * PASSAGES]
        self.end_id = data.tokenizer.eos_token_id
        self.model = new_model(setting.width, setting.seed)
        self.steps = Steps(self.model, [*regularizers_of(setting), *more_regularizers])
        groups = self.steps.parameter_groups(setting.rate)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
        self.windows: torch.Tensor | None = None  # read these, in place of the documents
        self.epoch_at_hand: tuple[int, torch.Tensor, list[int]] | None = None

    @cached_property
    def steps_per_epoch(self) -> int:
        return len(self.of_epoch(0)[0]) // BATCH

    def of_epoch(self, epoch: int) -> tuple[torch.Tensor, list[int]]:
        """All windows of that epoch, and the order in which they are read."""
        if self.epoch_at_hand is None or self.epoch_at_hand[0] != epoch:
            order = random.Random(f"{self.setting.seed}-{epoch}")
            windows = self.windows
            if windows is None:
                documents = list(self.documents)
                if self.setting.treated:
                    order.shuffle(documents)
                windows = torch.tensor(pack(documents, self.end_id, LENGTH))
            places = list(range(len(windows)))
            order.shuffle(places)
            self.epoch_at_hand = epoch, windows, places
        return self.epoch_at_hand[1:]

    def run(self, last: int, falls_from: int | None = None) -> None:
        """Train up to step ``last``, with the rate falling to 0 from ``falls_from``."""
        with self.steps.attached():
            while self.steps.step < last:
                step = self.steps.step
                factor = min(1.0, (step + 1) / WARMUP)
                if falls_from is not None:
                    factor *= (last - step) / (last - falls_from)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.setting.rate * factor
                epoch, place = divmod(step, self.steps_per_epoch)
                windows, places = self.of_epoch(epoch)
                rows = places[place * BATCH : (place + 1) * BATCH]
                batch = {"input_ids": windows[rows], "labels": windows[rows]}
                torch.manual_seed(1_000_003 * self.setting.seed + step)
                loss = self.steps.gradient([{**batch, "row_index": torch.tensor(rows)}])
                if not math.isfinite(loss):
                    raise FloatingPointError(f"step {step}")
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.steps.done(self.optimizer)
                self.optimizer.zero_grad()

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps.state_dict(),
            "step": self.steps.step,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps.load_state_dict(state["steps"])
        self.steps.step = state["step"]

    def evaluated_weights(self) -> dict[str, torch.Tensor]:
        with self.steps.evaluation_weights():
            return copies(trained_parameters(self.model))


def weights_path(setting: Setting, epochs: float) -> Path:
    return FOLDER / "weights" / f"{setting.name}-{epochs:g}.pt"


def train(setting: Setting, epochs: float, data: Data) -> dict[str, torch.Tensor]:
    """The weights after so many epochs; kept, as are points of the trunk."""
    path = weights_path(setting, epochs)
    if not path.exists():
        training = Training(setting, data)
        last = round(epochs * training.steps_per_epoch)
        branches = sorted({branch_of(training, each) for each in {*EPOCHS, epochs}})
        branch = branch_of(training, epochs)
        trunk = FOLDER / "trunks" / setting.name
        trunk.mkdir(parents=True, exist_ok=True)
        kept = [int(file.stem) for file in trunk.glob("*.pt")]
        if earlier := [step for step in kept if step <= branch]:
            training.load(trunk / f"{max(earlier)}.pt")
        for step in branches:
            if training.steps.step < step <= branch:
                training.run(step)
                training.save(trunk / f"{step}.pt")
        training.run(last, branch)
        save_weights(training, path)
    return torch.load(path, weights_only=True)


def branch_of(training: Training, epochs: float) -> int:
    """The step at which a training of so many epochs leaves the trunk."""
    return round((1 - FALL) * round(epochs * training.steps_per_epoch))


def save_weights(training: Training, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{training.setting.name}")
    torch.save(training.evaluated_weights(), partial)
    partial.replace(path)


def put_in(weights: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    """A model of these weights, for evaluation."""
    model = new_model(weights["model.embed_tokens.weight"].shape[1], 0)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert missing == ["lm_head.weight"], "the head is tied to the embeddings"
    return model.eval()
