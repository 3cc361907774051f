"""A script for TRL's SFTTrainer; regularizers that it lacks are attached."""

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
    torch_import,
)


def snippet(source: RecipeToExport) -> str:
    """A script for TRL's SFTTrainer; regularizers that it lacks are attached."""
    found = script_settings(source)
    lora = f"LoraConfig({arguments(found.lora)}, task_type='CAUSAL_LM')" if found.lora else "None"
    imports = [*torch_import(found), "from datasets import load_dataset"]
    if found.lora:
        imports.append("from peft import LoraConfig")
    imports += callback_import(found)
    imports.append("from trl import SFTConfig, SFTTrainer")
    return "\n".join(
        [
            *header(source, found, "TRL"),
            *imports,
            "",
            f"MODEL, TRAIN, VALIDATION = {source.model!r}, 'train.jsonl', 'validation.jsonl'",
            "",
            *rate_lines(source),
            *config_lines(found, max_length=source.recipe.data.max_length),
            "trainer = SFTTrainer(",
            "    model=MODEL,",
            "    args=args,",
            *data_lines(),
            f"    peft_config={lora},",
            f"    callbacks=[{', '.join(found.callbacks)}],",
            ")",
            *attach_lines(found),
            "trainer.train()",
            "trainer.save_model()",
            "",
        ]
    )
