"""Train one arm of a run: the recipe itself, its control, a search trial or a fold."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import set_seed

from heldout.core.augmentation import Augmentation, KeyFacts, Supplies
from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Evaluation, Regularizer, Stop
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.lm.load import LoadedModel, from_scratch, load_model
from heldout.lm.nll import document_losses
from heldout.training.attach import saved_states
from heldout.training.keeper import Keeper
from heldout.training.loop import Outcome, Schedule, train
from heldout.training.steps import evaluation_weights, load_states
from heldout.training.variants import AugmentedWindows
from heldout.training.windows import WindowDataset


@dataclass(frozen=True)
class Target:
    """What is trained: a model to load, or a configuration to start from."""

    model: str
    from_scratch: str = ""  # path of a config.json; ``model`` then names the tokenizer

    @classmethod
    def of(cls, model: str, from_scratch: str) -> "Target":
        """Local paths become absolute, so that a run can be resumed from another folder."""

        def absolute(name: str) -> str:
            return str(Path(name).resolve()) if name and Path(name).exists() else name

        return cls(absolute(model), absolute(from_scratch))

    def load(self, recipe: Recipe) -> LoadedModel:
        """A fresh copy of the base, in float32, on the device that trains."""
        device = training_device()
        if self.from_scratch:
            return from_scratch(
                self.from_scratch,
                self.model,
                seed=recipe.train.seed,
                device=device,
                norm=recipe.model.norm,
                norm_position=recipe.model.norm_position,
            )
        if recipe.model.norm or recipe.model.norm_position:
            raise UserError(
                "model.norm and model.norm_position choose the norms of a model from scratch: give "
                "--from-scratch config.json, or leave them out."
            )
        return load_model(
            self.model,
            device=device,
            trust_remote_code=recipe.model.trust_remote_code,
            merge_adapter=recipe.model.method == "full",  # LoRA goes on with the same adapter
        )


def training_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Texts:
    """The rows an arm trains on and is measured on."""

    train: list[Row]
    validation: list[Row]
    followed: list[Row]  # training rows whose clean loss is followed


def regularizers_of(recipe: Recipe) -> list[Regularizer]:
    """Build the regularizers that the recipe names, in its order."""
    return [
        build("regularizer", name, parameters) for name, parameters in recipe.regularizers.items()
    ]


def augmentations_of(
    recipe: Recipe, target: Target, read: Callable[[str], list[Row]]
) -> list[Augmentation]:
    """Build the augmentations that the recipe names, in its order, with what they need.

    ``read`` gives the rows that the augmentation of a name adds.
    """

    def base() -> tuple[Any, Any]:
        loaded = target.load(recipe)
        return loaded.model, loaded.tokenizer

    found = []
    for name, parameters in recipe.augment.items():
        augmentation = build("augmentation", name, parameters)
        augmentation.prepare(Supplies(lambda path: read(name), base))  # noqa: B023
        found.append(augmentation)
    return found


def windows_of(run: Run, target: Target, recipe: Recipe, rows: Any, tokenizer: Any):
    """The windows of a training: of the rows as they are, or of their variants in each epoch."""
    if not recipe.augment:
        return WindowDataset(rows, tokenizer, recipe.data.max_length)
    augmentations = _augmentations_of_run(run, target, json.dumps(recipe.augment))
    return augmented_windows(rows, tokenizer, recipe, augmentations)


def augmented_windows(
    rows: Any, tokenizer: Any, recipe: Recipe, augmentations: list[Augmentation]
) -> AugmentedWindows:
    """Windows that are made anew in each epoch."""
    return AugmentedWindows(
        rows,
        tokenizer,
        recipe.data.max_length,
        augmentations,
        seed=recipe.train.seed,
        planned_epochs=recipe.train.max_epochs,
        facts=KeyFacts(recipe.data.key_facts),
    )


@lru_cache(maxsize=1)
def _augmentations_of_run(run: Run, target: Target, augment: str) -> list[Augmentation]:
    """Kept for all arms of a run: what they have loaded, and variants that take long to make."""
    recipe = replace(run.recipe, augment=json.loads(augment))
    return augmentations_of(recipe, target, lambda name: list(run.read_rows(name)))


def prepare(loaded: LoadedModel, recipe: Recipe, *, is_scratch: bool = False) -> Any:
    """The model to train: with LoRA layers or whole, weights tied or untied as the recipe says."""
    model = loaded.model
    set_seed(recipe.train.seed)
    if recipe.model.tie_weights is not None:
        changed = tie(model, recipe.model.tie_weights)
        if changed and recipe.model.method == "lora" and not is_scratch:
            raise UserError(
                f"model.tie_weights={str(recipe.model.tie_weights).lower()} changes the model, and "
                "an adapter folder cannot hold that: use model.method=full."
            )
    if recipe.model.method == "full" or is_scratch:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
    if isinstance(model, PeftModel):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError("The adapter has no LoRA weights to go on with: use model.method=full.")
        return model
    config = LoraConfig(
        r=recipe.model.lora_rank,
        lora_alpha=recipe.model.lora_alpha,
        target_modules=recipe.model.lora_targets
        if recipe.model.lora_targets == "all-linear"
        else [name.strip() for name in recipe.model.lora_targets.split(",")],
        task_type="CAUSAL_LM",
        lora_dropout=0.0,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"model.lora_targets={recipe.model.lora_targets!r}: {error}") from None


def tie(model: Any, tied: bool) -> bool:
    """Share the output layer's weights with the input embedding, or give it a copy of its own.

    Returns whether anything changed.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    shared = head.weight is embedding.weight
    if tied and not shared:
        if head.weight.shape != embedding.weight.shape:
            raise UserError("model.tie_weights: input and output layers have different shapes.")
        head.weight = embedding.weight
    if not tied and shared:
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    model.config.tie_word_embeddings = tied
    if not tied:
        model._tied_weights_keys = None
    return tied != shared


def measurer(
    model: Any, tokenizer: Any, recipe: Recipe, texts: Texts
) -> Callable[[str], DocumentLosses]:
    """Clean losses of the model as it is now on ``validation`` or ``train`` (followed rows)."""

    def measure(part: str) -> DocumentLosses:
        rows = texts.validation if part == "validation" else texts.followed
        return losses_of(model, tokenizer, rows, recipe)

    return measure


def losses_of(model: Any, tokenizer: Any, rows: Any, recipe: Recipe) -> DocumentLosses:
    """Streaming losses with the recipe's window and batch sizes."""
    return document_losses(
        model,
        rows,
        tokenizer,
        max_length=recipe.data.max_length,
        batch_size=recipe.eval.batch_size,
    )


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights and tokenizer in Hugging Face form: an adapter folder, or a whole model."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Trained:
    """A model as it is after training, with what was measured on the way."""

    model: Any
    tokenizer: Any
    outcome: Outcome
    evaluations: list[Evaluation]
    regularizers: list[Regularizer]

    def save(self, folder: Path) -> None:
        """Save the weights that count: averages, where a regularizer keeps them."""
        with evaluation_weights(self.model, self.regularizers):
            save_model(self.model, self.tokenizer, folder)


@dataclass
class Condition:
    """One training with its keeper, ready to run or to resume."""

    run: Run
    target: Target
    recipe: Recipe
    texts: Texts
    learning_rate: float
    max_epochs: float
    history_name: str = "history.jsonl"
    folder: str = "checkpoints"
    keep_best: bool = True

    def train(
        self,
        *,
        stop: Callable[[], bool],
        progress: Progress,
        name: str,
        before_first_step: Callable[[Any, Any, WindowDataset, Schedule], None] | None = None,
    ) -> Trained:
        """Train, or go on from the newest checkpoint; the model holds the last weights."""
        loaded = self.target.load(self.recipe)
        tokenizer = loaded.tokenizer
        model = prepare(loaded, self.recipe, is_scratch=bool(self.target.from_scratch))
        regularizers = regularizers_of(self.recipe)
        windows = windows_of(self.run, self.target, self.recipe, self.texts.train, tokenizer)
        schedule = Schedule.of(len(windows), self.recipe, max_epochs=self.max_epochs)
        folder = self.run.path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        keeper = Keeper(
            self.run,
            measure=measurer(model, tokenizer, self.recipe, self.texts),
            save=lambda path: save_model(model, tokenizer, path),
            model=model,
            regularizers=regularizers,
            history_name=self.history_name,
            keep_best=self.keep_best,
            on_entry=lambda entry: progress.advance(0, _figures(entry)),
        )
        resumed_from = last_step(folder)
        keeper.restore(resumed_from if resumed_from is not None else -1)
        ended = _ended(keeper, schedule, resumed_from)
        if ended and resumed_from is not None:
            load_ended(model, folder / f"checkpoint-{resumed_from}", regularizers)
            outcome = Outcome(
                resumed_from, resumed_from / schedule.steps_per_epoch, ended, False, 0.0
            )
            return Trained(model, tokenizer, outcome, keeper.evaluations, regularizers)
        with ExitStack() as stack:
            stack.enter_context(progress.stage(name, schedule.max_steps))
            if before_first_step:
                before_first_step(model, tokenizer, windows, schedule)
            if resumed_from is None:
                keeper.evaluate(0, 0.0, None, 0.0)
            main = self.history_name == "history.jsonl"
            outcome = train(
                model,
                windows,
                self.recipe if main else self.recipe.replace(train={"report_to": ()}),
                regularizers,
                learning_rate=self.learning_rate,
                schedule=schedule,
                folder=folder,
                on_evaluate=keeper.evaluate,
                put_back=lambda: load_weights(model, self.run.best),
                resume=True,
                should_stop=stop,
                progress=progress,
            )
        return Trained(model, tokenizer, outcome, keeper.evaluations, regularizers)

    def train_unwatched(
        self, *, stop: Callable[[], bool], progress: Progress, name: str
    ) -> Trained:
        """Train for ``max_epochs`` with nothing held out; the length was set by folds."""
        loaded = self.target.load(self.recipe)
        model = prepare(loaded, self.recipe, is_scratch=bool(self.target.from_scratch))
        regularizers = regularizers_of(self.recipe)
        windows = windows_of(self.run, self.target, self.recipe, self.texts.train, loaded.tokenizer)
        schedule = Schedule.of(len(windows), self.recipe, max_epochs=self.max_epochs)
        folder = self.run.path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        resumed_from = last_step(folder)
        if resumed_from is not None and resumed_from >= schedule.max_steps:
            load_ended(model, folder / f"checkpoint-{resumed_from}", regularizers)
            epoch = resumed_from / schedule.steps_per_epoch
            done = Outcome(resumed_from, epoch, "all planned epochs are done", False, 0.0)
            return Trained(model, loaded.tokenizer, done, [], regularizers)
        with progress.stage(name, schedule.max_steps):
            outcome = train(
                model,
                windows,
                self.recipe,
                regularizers,
                learning_rate=self.learning_rate,
                schedule=schedule,
                folder=folder,
                on_evaluate=lambda *_: (Continue(), {}),
                resume=True,
                should_stop=stop,
                progress=progress,
            )
        return Trained(model, loaded.tokenizer, outcome, [], regularizers)


def _ended(keeper: Keeper, schedule: Schedule, step: int | None) -> str:
    """Why training had ended at the checkpoint of ``step``; empty if it goes on from there."""
    if step is None:
        return ""
    if keeper.evaluations and keeper.evaluations[-1].step == step:
        decision = keeper.decide()
        if isinstance(decision, Stop):
            return decision.reason
    return "all planned epochs are done" if step >= schedule.max_steps else ""


def load_ended(model: Any, checkpoint: Path, regularizers: list[Regularizer]) -> None:
    """Bring back a finished training: weights, and what the regularizers kept."""
    for regularizer in regularizers:
        regularizer.prepare(model)
    load_weights(model, checkpoint)
    load_states(regularizers, saved_states(checkpoint))


def load_weights(model: Any, folder: Path) -> None:
    """Put the weights of a checkpoint, or of what ``save_model`` wrote, into ``model``."""
    if isinstance(model, PeftModel):
        weights = load_file(folder / "adapter_model.safetensors")
        set_peft_model_state_dict(model, weights)
    else:
        for path in sorted(folder.glob("*.safetensors")):
            model.load_state_dict(load_file(path), strict=False)
        model.tie_weights()


def last_step(folder: Path) -> int | None:
    """Step of the newest whole checkpoint in ``folder``; half-written ones are removed."""
    steps = []
    for path in folder.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():
            steps.append(int(path.name.split("-")[1]))
        else:
            shutil.rmtree(path)
    return max(steps, default=None)


def _figures(entry: dict[str, Any]) -> str:
    kept = " (kept)" if entry["is_best"] else ""
    return f"train {entry['train_nll']:.3f}, held-out {entry['validation_nll']:.3f}{kept}"
