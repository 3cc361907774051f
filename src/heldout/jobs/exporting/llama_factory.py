"""YAML for LLaMA-Factory."""

from typing import Any

from heldout.jobs.exporting.settings import (
    RecipeToExport,
    evaluation_arguments,
    exported_arguments,
    header,
    place_regularizers,
)
from heldout.jobs.exporting.yaml_lines import yaml_lines


def snippet(source: RecipeToExport) -> str:
    """YAML for LLaMA-Factory."""
    found = exported_arguments(source)
    place_regularizers(source, found, attaches=False, smooths_labels=True)
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
        table |= {k: True for k in ("use_dora", "use_rslora") if k in found.lora}
        beginning = found.lora.get("init_lora_weights")
        if beginning == "pissa":
            table["pissa_init"] = True
        elif beginning:
            found.notes.append(f"model.adapter={beginning}: no counterpart")
    if "early_stopping_patience" in found.train:
        table |= {
            **evaluation_arguments(source),
            "early_stopping_steps": found.train["early_stopping_patience"],
        }
    found.notes.append("dataset: names of dataset_info.json; template: the one of your model")
    return "\n".join([*header(source, found, "LLaMA-Factory"), *yaml_lines(table), ""])
