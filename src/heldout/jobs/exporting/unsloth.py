"""A script for unsloth, which trains by TRL's SFTTrainer."""

from heldout.jobs.exporting.counterparts import Code
from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import header
from heldout.jobs.exporting.sft_script import (
    arguments,
    attach_lines,
    callback_import,
    config_lines,
    data_lines,
    rate_lines,
    script_settings,
)

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_DTYPES = {"auto": None, "float32": Code("torch.float32"), "bfloat16": Code("torch.bfloat16")}


def snippet(source: RecipeToExport) -> str:
    """A script for unsloth; its own seed and checkpointing give way to the recipe's."""
    found = script_settings(source)
    recipe = source.recipe
    shared = {
        "use_gradient_checkpointing": recipe.model.gradient_checkpointing,
        "random_state": recipe.train.seed,
    }
    loading = {
        "max_seq_length": recipe.data.max_length,
        "dtype": _DTYPES[recipe.train.precision],
        "load_in_4bit": recipe.model.load_in == "4bit",
        "load_in_8bit": recipe.model.load_in == "8bit",
        "full_finetuning": not found.lora,
        **shared,
    }
    if recipe.model.trust_remote_code:
        loading["trust_remote_code"] = True
    lora = {**found.lora, **shared}
    if lora.get("target_modules") == "all-linear":
        lora["target_modules"] = list(_LINEAR)
    adapter = [f"model = FastLanguageModel.get_peft_model(model, {arguments(lora)})"]
    return "\n".join(
        [
            *header(source, found, "unsloth"),
            "from unsloth import FastLanguageModel",
            "import torch",
            "from datasets import load_dataset",
            *callback_import(found),
            "from trl import SFTConfig, SFTTrainer",
            "",
            f"MODEL, TRAIN, VALIDATION = {source.model!r}, 'train.jsonl', 'validation.jsonl'",
            "",
            *rate_lines(source),
            "model, tokenizer = FastLanguageModel.from_pretrained(",
            f"    MODEL, {arguments(loading)}",
            ")",
            *(adapter if found.lora else []),
            *config_lines(found, max_length=recipe.data.max_length),
            "trainer = SFTTrainer(",
            "    model=model,",
            "    processing_class=tokenizer,",
            "    args=args,",
            *data_lines(),
            f"    callbacks=[{', '.join(found.callbacks)}],",
            ")",
            *attach_lines(found),
            "trainer.train()",
            "trainer.save_model()",
            "",
        ]
    )
