"""The settings of a recipe, or of a run's best, for another trainer: a snippet ready to use.

What has no counterpart there stands in the snippet as a comment; nothing is dropped silently.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heldout.core.discovery import entries_of
from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.run import Run

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass(frozen=True)
class Source:
    """What is exported; ``best_epochs`` and a found rate come from a finished run."""

    name: str
    recipe: Recipe
    model: str = "MODEL"
    learning_rate: float | None = None
    best_epochs: float | None = None


@dataclass
class _Settings:
    """Arguments by section of the snippet, and what is told beside them."""

    train: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)  # calls of heldout's own classes
    callbacks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export_recipe(source: str | Path, trainer: str) -> str:
    """A script (trl, unsloth) or YAML (axolotl, llama-factory) with the settings of ``source``.

    ``source`` is a run folder, a ready recipe's name or a .toml file. Of a run the learning rate is
    the one that was found, and the number of epochs that of its best checkpoint. Raises UserError
    for an unknown source or trainer.
    """
    if trainer not in TRAINERS:
        known = ", ".join(TRAINERS)
        raise UserError(
            f"--for must be one of {known}, got {trainer!r}{did_you_mean(trainer, list(TRAINERS))}"
        )
    return TRAINERS[trainer](_read(source))


def _read(source: str | Path) -> Source:
    folder = Path(source)
    if not folder.is_dir():
        return _from_recipe(str(source), load_recipe(source))
    run = Run.open(folder)
    if not run.path("result.json").is_file():
        raise UserError(f"{folder} has no result.json: the run was not trained to its end.")
    result = run.read_json("result.json")
    recipe = run.recipe
    if result["best_step"] == 0:
        raise UserError(
            f"{folder}: no checkpoint was better than the base model, so there is nothing to copy."
        )
    return Source(
        f"the best checkpoint of {folder.name}",
        recipe,
        run.read_json("environment.json").get("model", "MODEL"),
        result.get("learning_rate") or recipe.train.learning_rate,
        result["best_epoch"],
    )


def _from_recipe(name: str, recipe: Recipe) -> Source:
    return Source(f"the recipe {name}", recipe, learning_rate=recipe.train.learning_rate)


# What all trainers on transformers share


def _trainer_arguments(source: Source) -> _Settings:
    """Under the names of ``TrainingArguments``; regularizers are not in it."""
    recipe, train = source.recipe, source.recipe.train
    found = _Settings()
    epochs = train.max_epochs if source.best_epochs is None else source.best_epochs
    found.train = {"num_train_epochs": _short(epochs)}
    if source.learning_rate is not None:
        found.train["learning_rate"] = source.learning_rate
    else:
        found.notes.append("learning rate: heldout fit finds it by a short search; set your own")
    if recipe.search.grids:
        found.notes.append(
            f"{', '.join(recipe.search.grids)}: where the search of heldout fit starts; a finished "
            "run has what it chose"
        )
    if source.best_epochs is not None and train.schedule != "constant":
        found.notes.append(
            f"the {train.schedule} fall of the rate was planned for {_short(train.max_epochs)} "
            "epochs; here it ends with the best one"
        )
    found.train |= {
        "per_device_train_batch_size": train.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps,
        "warmup_steps": train.warmup_steps,
        "max_grad_norm": train.max_grad_norm,
        "adam_beta2": train.adam_beta2,
        "seed": train.seed,
    }
    if train.optimizer == "schedule_free":
        found.train |= {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}
    else:
        found.train |= {"optim": "adamw_torch", "lr_scheduler_type": SCHEDULES[train.schedule]}
    if recipe.model.method == "lora":
        found.lora = {
            "r": recipe.model.lora_rank,
            "lora_alpha": recipe.model.lora_alpha,
            "lora_dropout": recipe.regularizers.get("dropout", {}).get("adapter", 0.0),
            "target_modules": _targets(recipe),
        }
    _tell_the_rest(source, found)
    return found


def _targets(recipe: Recipe) -> str | list[str]:
    """``all-linear``, or the names one by one, as PEFT wants them."""
    targets = recipe.model.lora_targets
    return targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]


def _tell_the_rest(source: Source, found: _Settings) -> None:
    """Comments on what no other trainer has as a setting."""
    recipe = source.recipe
    model, data = recipe.model, recipe.data
    found.notes.append(
        f"data.max_length={data.max_length}: heldout cuts longer rows into windows, others cut "
        "them off, with their end-of-text token"
    )
    if model.tie_weights is not None:
        found.notes.append(f"model.tie_weights={str(model.tie_weights).lower()}: no counterpart")
    for name in ("norm", "norm_position"):
        if getattr(model, name):
            found.notes.append(f"model.{name}={getattr(model, name)}: no counterpart")
    for name, parameters in recipe.augment.items():
        found.notes.append(
            f"augment.{name} {parameters or ''}: no counterpart; heldout.augmented writes the "
            "variants as rows"
        )
    found.notes.append(
        "split: hold whole groups out, near duplicates with them: heldout check --write-clean"
    )


def _evaluations(source: Source) -> float:
    """Share of the training after which is evaluated."""
    recipe = source.recipe
    return _short(1 / max(1.0, recipe.eval.per_epoch * recipe.train.max_epochs))


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _regularizers(source: Source, found: _Settings, native: dict[str, Callable]) -> None:
    """Each regularizer by its counterpart, else by ``attach`` or, where that is None, as a note."""
    classes = {entry.name: entry.class_name for entry in entries_of("regularizer")}
    for name, parameters in source.recipe.regularizers.items():
        if name == "early_stopping" and source.best_epochs is not None:
            found.notes.append("early_stopping: not needed, the epochs are those of the best")
            continue
        rest = native[name](parameters) if name in native else parameters
        if rest is None:
            continue
        values = ", ".join(f"{key}={value!r}" for key, value in rest.items())
        call = f"{classes.get(name, name)}({values})"
        if "attach" in native:
            found.attached.append(f"heldout.{call}")
        else:
            found.notes.append(f"regularizers.{name} {call}: no counterpart")


def _native(found: _Settings, *, attaches: bool, smoothing: bool) -> dict[str, Callable]:
    """How a regularizer becomes a setting; what a function returns is left for ``attach``."""

    def weight_decay(parameters: dict[str, Any]) -> dict[str, Any] | None:
        if set(parameters) - {"rate"}:
            return parameters
        found.train["weight_decay"] = parameters.get("rate", 0.1)
        return None

    def dropout(parameters: dict[str, Any]) -> dict[str, Any] | None:
        rest = {key: value for key, value in parameters.items() if key != "adapter" and value}
        if parameters.get("adapter") and not found.lora:
            found.notes.append("dropout.adapter: there is no adapter in full fine-tuning")
        return rest or None

    def early_stopping(parameters: dict[str, Any]) -> None:
        patience, delta = parameters.get("patience", 3), parameters.get("min_delta", 0.0)
        found.callbacks.append(f"EarlyStoppingCallback({patience}, {delta})")
        found.train["early_stopping_patience"] = patience
        found.notes.append(
            "early_stopping.certain_rise: no counterpart; others stop by patience alone"
        )

    def label_smoothing(parameters: dict[str, Any]) -> None:
        found.train["label_smoothing_factor"] = parameters.get("amount", 0.1)

    def neftune(parameters: dict[str, Any]) -> None:
        found.train["neftune_noise_alpha"] = parameters.get("alpha", 5.0)
        found.notes.append("neftune: scaled by padded length there, by each row's own here")

    native: dict[str, Callable] = {
        "weight_decay": weight_decay,
        "dropout": dropout,
        "early_stopping": early_stopping,
    }
    if attaches:
        native["attach"] = lambda parameters: parameters
    else:
        native["neftune"] = neftune
        if smoothing:
            native["label_smoothing"] = label_smoothing
    return native


# The trainers


def trl(source: Source) -> str:
    """A script for TRL's SFTTrainer; regularizers that it lacks are attached."""
    found = _scripted(source)
    lora = f"LoraConfig({_arguments(found.lora)}, task_type='CAUSAL_LM')" if found.lora else "None"
    imports = ["from datasets import load_dataset"]
    if found.lora:
        imports.append("from peft import LoraConfig")
    imports += _callback_import(found)
    imports.append("from trl import SFTConfig, SFTTrainer")
    return "\n".join(
        [
            *_header(source, found, "TRL"),
            *imports,
            "",
            f"MODEL, TRAIN, VALIDATION = {source.model!r}, 'train.jsonl', 'validation.jsonl'",
            "",
            *_config(found, max_length=source.recipe.data.max_length),
            "trainer = SFTTrainer(",
            "    model=MODEL,",
            "    args=args,",
            *_data_lines(),
            f"    peft_config={lora},",
            f"    callbacks=[{', '.join(found.callbacks)}],",
            ")",
            *_attach(found),
            "trainer.train()",
            "",
        ]
    )


def unsloth(source: Source) -> str:
    """A script for unsloth, which trains by TRL's SFTTrainer."""
    found = _scripted(source)
    length = source.recipe.data.max_length
    lora = dict(found.lora)
    if lora.get("target_modules") == "all-linear":
        names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        lora["target_modules"] = list(names)
    adapter = [f"model = FastLanguageModel.get_peft_model(model, {_arguments(lora)})"]
    full = ", full_finetuning=True" if not found.lora else ""
    return "\n".join(
        [
            *_header(source, found, "unsloth"),
            "from unsloth import FastLanguageModel",
            "from datasets import load_dataset",
            *_callback_import(found),
            "from trl import SFTConfig, SFTTrainer",
            "",
            f"MODEL, TRAIN, VALIDATION = {source.model!r}, 'train.jsonl', 'validation.jsonl'",
            "",
            "model, tokenizer = FastLanguageModel.from_pretrained(",
            f"    MODEL, max_seq_length={length}, load_in_4bit=False{full}",
            ")",
            *(adapter if found.lora else []),
            *_config(found, max_length=length),
            "trainer = SFTTrainer(",
            "    model=model,",
            "    processing_class=tokenizer,",
            "    args=args,",
            *_data_lines(),
            f"    callbacks=[{', '.join(found.callbacks)}],",
            ")",
            *_attach(found),
            "trainer.train()",
            "",
        ]
    )


def axolotl(source: Source) -> str:
    """YAML for axolotl."""
    found = _trainer_arguments(source)
    _regularizers(source, found, _native(found, attaches=False, smoothing=False))
    train, recipe = found.train, source.recipe
    table: dict[str, Any] = {
        "base_model": source.model,
        "datasets": [{"path": "train.jsonl", "ds_type": "json", "type": "chat_template"}],
        "test_datasets": [
            {
                "path": "validation.jsonl",
                "ds_type": "json",
                "split": "train",
                "type": "chat_template",
            }
        ],
        "val_set_size": 0,
        "output_dir": "out",
        "sequence_len": recipe.data.max_length,
        "sample_packing": False,
        "train_on_inputs": False,
        "num_epochs": train["num_train_epochs"],
        "micro_batch_size": train["per_device_train_batch_size"],
        "gradient_accumulation_steps": train["gradient_accumulation_steps"],
        "optimizer": train["optim"],
        "lr_scheduler": train["lr_scheduler_type"],
        **_kept(
            train,
            "learning_rate",
            "warmup_steps",
            "max_grad_norm",
            "adam_beta2",
            "weight_decay",
            "neftune_noise_alpha",
            "seed",
        ),
        "bf16": {"auto": "auto", "float32": False, "bfloat16": True}[recipe.train.precision],
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
    }
    if found.lora:
        targets = found.lora["target_modules"]
        linear = targets == "all-linear"
        table |= {
            "adapter": "lora",
            "lora_r": found.lora["r"],
            "lora_alpha": found.lora["lora_alpha"],
            "lora_dropout": found.lora["lora_dropout"],
            "lora_target_linear": linear,
        }
        if not linear:
            table["lora_target_modules"] = targets
    if "early_stopping_patience" in train:
        every = max(1, round(recipe.eval.per_epoch))
        table |= {
            "evals_per_epoch": every,
            "saves_per_epoch": every,
            "load_best_model_at_end": True,
            "early_stopping_patience": train["early_stopping_patience"],
        }
    found.notes.append("datasets: type chat_template reads messages; set it to what your rows are")
    return "\n".join([*_header(source, found, "axolotl"), *_yaml(table), ""])


def llama_factory(source: Source) -> str:
    """YAML for LLaMA-Factory."""
    found = _trainer_arguments(source)
    _regularizers(source, found, _native(found, attaches=False, smoothing=True))
    recipe = source.recipe
    train = {k: v for k, v in found.train.items() if k != "early_stopping_patience"}
    table: dict[str, Any] = {
        "model_name_or_path": source.model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora" if found.lora else "full",
        "dataset": "train",
        "eval_dataset": "validation",
        "template": "TEMPLATE",
        "cutoff_len": recipe.data.max_length,
        "packing": False,
        "train_on_prompt": False,
        "output_dir": "out",
        **train,
        "bf16": recipe.train.precision != "float32",
    }
    if recipe.model.gradient_checkpointing is False:
        table["disable_gradient_checkpointing"] = True
    if found.lora:
        targets = found.lora["target_modules"]
        table |= {
            "lora_rank": found.lora["r"],
            "lora_alpha": found.lora["lora_alpha"],
            "lora_dropout": found.lora["lora_dropout"],
            "lora_target": "all" if targets == "all-linear" else ",".join(targets),
        }
    if "early_stopping_patience" in found.train:
        table |= {
            **_evaluation_arguments(source),
            "early_stopping_steps": found.train["early_stopping_patience"],
        }
    found.notes.append("dataset: names of dataset_info.json; template: the one of your model")
    return "\n".join([*_header(source, found, "LLaMA-Factory"), *_yaml(table), ""])


TRAINERS: dict[str, Callable[[Source], str]] = {
    "trl": trl,
    "axolotl": axolotl,
    "llama-factory": llama_factory,
    "unsloth": unsloth,
}


# How it is written


def _scripted(source: Source) -> _Settings:
    found = _trainer_arguments(source)
    _regularizers(source, found, _native(found, attaches=True, smoothing=False))
    if found.train.pop("early_stopping_patience", None) is not None:
        found.train |= _evaluation_arguments(source)
    if source.recipe.train.precision != "auto":
        found.train["bf16"] = source.recipe.train.precision == "bfloat16"
    found.train["gradient_checkpointing"] = source.recipe.model.gradient_checkpointing
    return found


def _evaluation_arguments(source: Source) -> dict[str, Any]:
    every = _evaluations(source)
    return {
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
    }


def _header(source: Source, found: _Settings, trainer: str) -> list[str]:
    """What it is, and what has no counterpart."""
    title = f"# {source.name}, for {trainer}."
    return [title, *(f"# - {' '.join(note.split())}" for note in found.notes), ""]


def _config(found: _Settings, *, max_length: int) -> list[str]:
    lines = [f"    {key}={value!r}," for key, value in found.train.items()]
    return [
        "args = SFTConfig(",
        "    output_dir='out',",
        f"    max_length={max_length},",
        *lines,
        ")",
    ]


def _data_lines() -> list[str]:
    return [
        "    train_dataset=load_dataset('json', data_files=TRAIN, split='train'),",
        "    eval_dataset=load_dataset('json', data_files=VALIDATION, split='train'),",
    ]


def _callback_import(found: _Settings) -> list[str]:
    return ["from transformers import EarlyStoppingCallback"] if found.callbacks else []


def _attach(found: _Settings) -> list[str]:
    if not found.attached:
        return []
    return ["import heldout", f"heldout.attach(trainer, [{', '.join(found.attached)}])"]


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def _kept(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _yaml(table: dict[str, Any]) -> list[str]:
    """Flat YAML; a list of tables is one item a block."""
    lines = []
    for key, value in table.items():
        if isinstance(value, list):
            lines.append(f"{key}:")
            for item in value:
                if isinstance(item, dict):
                    pairs = [f"{name}: {_scalar(entry)}" for name, entry in item.items()]
                    lines += [f"  - {pairs[0]}", *(f"    {pair}" for pair in pairs[1:])]
                else:
                    lines.append(f"  - {_scalar(item)}")
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0") + ("0" if value == int(value) else "")
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return value if value.replace("_", "").replace(".", "").isalnum() else f'"{escaped}"'
    return str(value)
