"""YAML for LLaMA-Factory."""

from typing import Any

from heldout.jobs.exporting.counterparts import (
    dropout,
    early_stopping,
    label_smoothing,
    neftune,
    place_regularizers,
    weight_decay,
)
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import (
    TrainerSettings,
    best_arguments,
    evaluation_arguments,
    exported_arguments,
)
from heldout.jobs.exporting.yaml_text import yaml_text

_NATIVE = {
    "weight_decay": weight_decay,
    "dropout": dropout,
    "early_stopping": early_stopping,
    "label_smoothing": label_smoothing,
    "neftune": neftune,
}
_CARRIED = ("eval.batch_size", "train.report_to", "model.load_in")
_NOTES = {
    "text": "stage pt adds the end-of-text token by itself",
    "completion": "template empty adds nothing, not even an end: let each completion end with the "
    "end-of-text token of the model, as the rows do that heldout recipe RUN --out FOLDER writes",
    "conversation": "template: read from the tokenizer; name one of LLaMA-Factory's to have "
    "another",
}


def snippet(source: RecipeToExport) -> str:
    """YAML for LLaMA-Factory; ``dataset_info.json`` describes the rows."""
    found = exported_arguments(source, carried=_CARRIED)
    place_regularizers(source, found, native=_NATIVE, attaches=False)
    recipe = source.recipe
    train = {k: v for k, v in found.train.items() if k != "early_stopping_patience"}
    train.setdefault("learning_rate", "LEARNING_RATE")  # no number: refused there
    table: dict[str, Any] = {
        "model_name_or_path": source.model,
        "stage": "pt" if source.kind == "text" else "sft",
        "do_train": True,
        "finetuning_type": "lora" if found.lora else "full",
        "dataset_dir": ".",
        "dataset": "train",
        "eval_dataset": "validation",
        **({"template": "empty"} if source.kind == "completion" else {}),
        "cutoff_len": recipe.data.max_length,
        "packing": False,
        "train_on_prompt": False,
        "output_dir": "out",
        **train,
        "bf16": recipe.train.precision != "float32",
        "report_to": list(recipe.train.report_to) or "none",
    }
    if recipe.model.gradient_checkpointing is False:
        table["disable_gradient_checkpointing"] = True
    if recipe.model.trust_remote_code:
        table["trust_remote_code"] = True
    table |= _adapter(source, found)
    table |= evaluation_arguments(source)
    if found.stops_early:
        table |= {
            **best_arguments(source),
            "early_stopping_steps": found.train["early_stopping_patience"],
        }
    found.notes.append(f"rows: train and validation of dataset_info.json; {_NOTES[source.kind]}")
    return yaml_text(source, found, "LLaMA-Factory", table)


def _adapter(source: RecipeToExport, found: TrainerSettings) -> dict[str, Any]:
    if not found.lora:
        return {}
    targets = found.lora["target_modules"]
    table = {
        "lora_rank": found.lora["r"],
        "lora_alpha": found.lora["lora_alpha"],
        "lora_dropout": found.lora["lora_dropout"],
        "lora_target": "all" if targets == "all-linear" else ",".join(targets),
    }
    table |= {k: True for k in ("use_dora", "use_rslora") if k in found.lora}
    if load_in := source.recipe.model.load_in:
        table["quantization_bit"] = int(load_in.removesuffix("bit"))
    beginning = found.lora.get("init_lora_weights")
    if beginning == "pissa":
        table["pissa_init"] = True
    elif beginning:
        found.notes.append(f"model.adapter={source.recipe.model.adapter}: no counterpart")
    return table
