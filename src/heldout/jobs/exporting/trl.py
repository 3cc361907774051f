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


def quantized_lines(source: RecipeToExport) -> list[str]:
    """A base in four or eight bits is loaded before: nf4 with scales that are quantized, too."""
    load_in = source.recipe.model.load_in
    if not load_in:
        return []
    asked = {"load_in_4bit": "bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True"}
    name = f"load_in_{load_in}"
    more = f", {asked[name]}" if name in asked else ""
    return [
        "model = AutoModelForCausalLM.from_pretrained(",
        f"    MODEL, dtype='float32', quantization_config=BitsAndBytesConfig({name}=True{more})",
        ")",
    ]


def snippet(source: RecipeToExport) -> str:
    """A script for TRL's SFTTrainer; regularizers that it lacks are attached."""
    found = script_settings(source)
    lora = f"LoraConfig({arguments(found.lora)}, task_type='CAUSAL_LM')" if found.lora else "None"
    imports = [*torch_import(found), "from datasets import load_dataset"]
    if found.lora:
        imports.append("from peft import LoraConfig")
    quantized = quantized_lines(source)
    if quantized:
        imports.append("from transformers import AutoModelForCausalLM, BitsAndBytesConfig")
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
            *quantized,
            "trainer = SFTTrainer(",
            f"    model={'model' if quantized else 'MODEL'},",
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
