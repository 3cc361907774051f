"""A script for unsloth, which trains by TRL's SFTTrainer."""

from heldout.jobs.exporting.settings import RecipeToExport, header
from heldout.jobs.exporting.sft_script import (
    arguments,
    attach_lines,
    callback_import,
    config_lines,
    data_lines,
    script_settings,
)


def snippet(source: RecipeToExport) -> str:
    """A script for unsloth, which trains by TRL's SFTTrainer."""
    found = script_settings(source)
    length = source.recipe.data.max_length
    lora = dict(found.lora)
    if lora.get("target_modules") == "all-linear":
        names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        lora["target_modules"] = list(names)
    adapter = [f"model = FastLanguageModel.get_peft_model(model, {arguments(lora)})"]
    full = ", full_finetuning=True" if not found.lora else ""
    return "\n".join(
        [
            *header(source, found, "unsloth"),
            "from unsloth import FastLanguageModel",
            "from datasets import load_dataset",
            *callback_import(found),
            "from trl import SFTConfig, SFTTrainer",
            "",
            f"MODEL, TRAIN, VALIDATION = {source.model!r}, 'train.jsonl', 'validation.jsonl'",
            "",
            "model, tokenizer = FastLanguageModel.from_pretrained(",
            f"    MODEL, max_seq_length={length}, load_in_4bit=False{full}",
            ")",
            *(adapter if found.lora else []),
            *config_lines(found, max_length=length),
            "trainer = SFTTrainer(",
            "    model=model,",
            "    processing_class=tokenizer,",
            "    args=args,",
            *data_lines(),
            f"    callbacks=[{', '.join(found.callbacks)}],",
            ")",
            *attach_lines(found),
            "trainer.train()",
            "",
        ]
    )
