"""One training by transformers' Trainer or TRL's SFTTrainer, evaluated twice an epoch.

An evaluation measures the validation rows as heldout measures losses, and keeps the weights where
they are the best yet; the last weights are measured as well, so that both come from one training.
"""

# D documents

import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from generalization.arms import Settings
from heldout.core.errors import TrainingDiverged
from heldout.core.losses import DocumentLosses
from heldout.core.probe import VerbatimMemorization
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.target import Target
from heldout.lm.averages import RunningAverages
from heldout.lm.characters import token_size
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.tokenize import Window, collate, tokenize_row
from heldout.lm.weights import copies, trained_parameters, weights_replaced
from heldout.regularizers.temperature import Temperature

PER_EPOCH = 2  # evaluations
RECIPE = Recipe()  # window and batch sizes of measuring

Parts = dict[str, list[Row]]
Found = dict[str, Any]


def trained(settings: Settings, model: str, parts: Parts, seed: int, folder: Path) -> Found:
    """Figures of the training and losses of each test document, as JSON values.

    ``seconds``: of CPU, with the evaluations and without the test; ``tokens``: those scored in
    training; ``validation``: steps and losses; ``kept``: ``best``, ``average_H`` and, where nothing
    stops the training early, ``last``. One that diverges has a reason in ``diverged`` and keeps
    nothing.
    """
    begin = time.process_time()
    loaded = Target(model).load(RECIPE)
    tokenizer = loaded.tokenizer
    network = adapted(loaded.model, settings)
    windows = [
        window
        for row in parts["train"]
        for window in tokenize_row(row, tokenizer, RECIPE.data.max_length).windows
    ]

    def validate() -> DocumentLosses:
        return losses_of(network, tokenizer, parts["validation"], RECIPE)

    follower = Follower(settings, network, lambda: validate().nats_per_token)
    trainer = trainer_of(settings, network, tokenizer, windows, seed, folder, [follower])
    trainer.remove_callback(PrinterCallback)
    diverged = ""
    try:
        trainer.train()
        follower.evaluate(trainer.state.global_step)
    except TrainingDiverged as error:
        diverged = str(error)
    found: Found = {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "tokens": round(sum(window.num_scored for window in windows) * trainer.state.epoch),
        "seconds": time.process_time() - begin,
        "validation": follower.history,
        "kept": {},
    }
    if diverged:
        return {**found, "diverged": diverged}
    kept = dict(follower.best)
    if not settings.patience:  # of one that stops after its low, the last weights are no arm
        kept = {"last": copies(trained_parameters(network)), **kept}
    for name, weights in kept.items():
        if name == "best" and "last" in kept and follower.last_is_best:
            found["kept"]["best"] = found["kept"]["last"]
            continue
        with weights_replaced(network, weights):
            found["kept"][name] = measured(network, tokenizer, parts)
    if settings.lora is None and settings.patience and not settings.horizons:
        with weights_replaced(network, kept["best"]):
            found |= with_temperature(network, tokenizer, parts, validate)
    return found


def adapted(model: Any, settings: Settings) -> Any:
    if settings.lora is None:
        return model
    lora = settings.lora
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets or None,
            task_type="CAUSAL_LM",
        ),
    )


def measured(model: Any, tokenizer: Any, parts: Parts) -> Found:
    """Loss of each test document in nats, and training rows that are memorized word for word."""
    losses = losses_of(model, tokenizer, parts["test"], RECIPE)
    memorized = VerbatimMemorization.of(
        pass_statistics(
            model,
            parts["train"],
            tokenizer,
            max_length=RECIPE.data.max_length,
            batch_size=RECIPE.eval.batch_size,
            size=token_size(tokenizer, parts["train"]),
        )
    )
    return {
        "nll": rounded(losses.nll_nats_D),
        "memorized": int(memorized.memorized_D.sum()),
        "long_enough": len(memorized),
    }


def with_temperature(
    model: Any, tokenizer: Any, parts: Parts, validate: Callable[[], DocumentLosses]
) -> Found:
    """The best weights with the temperature that validation asks for; the model is changed."""
    begin = time.process_time()
    figures = Temperature().finish(model, validate)
    seconds = time.process_time() - begin
    nll_D = losses_of(model, tokenizer, parts["test"], RECIPE).nll_nats_D
    return {
        "temperature": {
            "value": figures["temperature"],
            "validation": figures["temperature_nll"],
            "seconds": seconds,
            "nll": rounded(nll_D),
        }
    }


def test_documents(model: str, parts: Parts) -> Found:
    """What all arms share: tokens and groups of the test documents, and the base model's losses."""
    loaded = Target(model).load(RECIPE)
    losses = losses_of(loaded.model, loaded.tokenizer, parts["test"], RECIPE)
    return {
        "tokens": losses.num_tokens_D.tolist(),
        "groups": losses.groups_D.tolist(),
        "kept": {"last": measured(loaded.model, loaded.tokenizer, parts)},
    }


def rounded(nll_D: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in nll_D]


class Follower(TrainerCallback):
    """Evaluates ``PER_EPOCH`` times an epoch, keeps the best weights, and stops where told to."""

    def __init__(self, settings: Settings, model: Any, loss: Callable[[], float]):
        self.settings = settings
        self.model = model
        self.loss = loss
        self.history: dict[str, list[float]] = {"steps": [], "best": []}
        self.best: dict[str, dict[str, torch.Tensor]] = {}
        self.averages = {horizon: RunningAverages() for horizon in settings.horizons}
        self.parts_done = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for horizon, average in self.averages.items():
            if not average.have_started:
                average.start(self.model)
            steps = horizon * state.global_step / state.epoch
            average.move(self.model, min(1.0, 1 / min(state.global_step, max(1.0, steps))))
        done = math.floor(PER_EPOCH * state.epoch + 1e-6)
        if done > self.parts_done:
            self.parts_done = done
            self.evaluate(state.global_step)
            if self.settings.patience and self.since_low() >= self.settings.patience:
                control.should_training_stop = True

    def evaluate(self, step: int) -> None:
        """Measure the weights and their averages, unless this step was measured already."""
        if step in self.history["steps"]:
            return
        self.history["steps"].append(step)
        self._keep("best")
        for horizon, average in self.averages.items():
            with average.put_in(self.model):
                self._keep(f"average_{horizon:g}")

    def _keep(self, name: str) -> None:
        losses = self.history.setdefault(name, [])
        losses.append(round(self.loss(), 6))
        if losses[-1] == min(losses):
            self.best[name] = copies(trained_parameters(self.model))

    @property
    def last_is_best(self) -> bool:
        return self.history["best"][-1] == min(self.history["best"])

    def since_low(self) -> int:
        """Evaluations since any of the kept weights was the best yet."""
        names = [name for name in self.history if name != "steps"]
        return min(len(x) - 1 - int(np.argmin(x)) for x in (self.history[n] for n in names))


def trainer_of(
    settings: Settings,
    model: Any,
    tokenizer: Any,
    windows: Sequence[Window],
    seed: int,
    folder: Path,
    callbacks: list[TrainerCallback],
) -> Trainer:
    shared: dict[str, Any] = {
        "output_dir": str(folder),
        "learning_rate": settings.rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": settings.batch,
        "gradient_accumulation_steps": settings.accumulation,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.decay,
        "seed": seed,
        "use_cpu": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if settings.trainer == "trl":
        from trl import SFTConfig, SFTTrainer

        disable_progress_bars()
        return SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([as_columns(window) for window in windows]),
            args=SFTConfig(
                **shared,
                warmup_steps=settings.warmup,
                packing=bool(settings.packing),
                max_length=settings.packing or 1024,
                gradient_checkpointing=False,
                bf16=False,
            ),
            callbacks=callbacks,
        )
    packs = packed(windows, settings.packing)
    pad_id = tokenizer.pad_token_id

    def joined(chosen: Sequence[list[Window]]) -> dict[str, torch.Tensor]:
        return collate(list(itertools.chain.from_iterable(chosen)), pad_id)

    return Trainer(
        model=model,
        args=TrainingArguments(
            **shared, warmup_steps=warmup_of(settings, len(packs)), remove_unused_columns=False
        ),
        train_dataset=packs,
        data_collator=joined,
        callbacks=callbacks,
    )


def as_columns(window: Window) -> dict[str, list[int]]:
    return {"input_ids": list(window.input_ids), "labels": list(window.labels)}


def packed(windows: Sequence[Window], tokens: int) -> list[list[Window]]:
    """Packs of at most ``tokens``, the longest rows first, each into the first pack with room.

    Rows of a pack do not see each other in the tools that are emulated, so that they are computed
    as rows of their own. Without packing each row is a pack.
    """
    if not tokens:
        return [[window] for window in windows]
    packs: list[list[Window]] = []
    rooms: list[int] = []
    for window in sorted(windows, key=lambda window: -len(window.input_ids)):
        size = len(window.input_ids)
        place = next((at for at, room in enumerate(rooms) if room >= size), len(packs))
        if place == len(packs):
            packs.append([])
            rooms.append(tokens)
        packs[place].append(window)
        rooms[place] -= size
    return packs


def warmup_of(settings: Settings, num_packs: int) -> float:
    """Steps, or a share that transformers rounds up; axolotl cuts it, and makes 2 steps of 1."""
    if not settings.cuts_warmup:
        return settings.warmup
    per_epoch = math.ceil(num_packs / settings.batch / settings.accumulation)
    steps = int(settings.warmup * per_epoch * settings.epochs)
    return 2 if steps == 1 else steps
