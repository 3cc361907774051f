"""Every regularizer trains an adapter on a quantized base, or is refused; the base stays as it is.

Tried, not declared: what wrote into frozen weights would change packed numbers.
"""

import pytest
import torch
from cases import build_case, case_names
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.lm.load import load_model
from heldout.lm.nll import document_losses
from heldout.lm.quantized import Quantization
from heldout.training.attach import attach
from heldout.training.windows import WindowDataset

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

FAST = ("kl_to_base", "l2_sp", "weight_decay", "mixout")


def everything(model):
    """Packed weights, their scales, and all else."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained(model, regularizers, windows, measure, folder):
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=3,
        learning_rate=1e-2,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=windows, data_collator=windows.collate)
    attach(trainer, regularizers, logit_free=True, evaluates=True, total_steps=3)
    trainer.train()
    for regularizer in regularizers:
        regularizer.finish(model, measure)


def refusal(regularizers, model, recipe):
    """What the first that refuses says; None where all would train."""
    try:
        for regularizer in regularizers:
            regularizer.check(model, recipe)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in case_names()],
)
def test_trains_on_a_quantized_base_or_is_refused(
    name, bits, tiny_model_dir, tiny_tokenizer, tmp_path
):
    base = load_model(str(tiny_model_dir), device="cpu", quantization=Quantization(bits)).model
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
    rows = [
        Row(i, ({"role": "text", "content": f"Row {i} is a row. " * 2},), f"{i}", source=f"{i % 2}")
        for i in range(8)
    ]
    windows = WindowDataset(rows, tiny_tokenizer, 48)
    regularizers = build_case(name, tiny_model_dir)
    before = everything(model)
    recipe = Recipe().replace(model={"load_in": bits})
    if (refused := refusal(regularizers, model, recipe)) is not None:
        assert "\n" not in refused
        assert all(torch.equal(value, before[n]) for n, value in everything(model).items())
        return

    def measure():
        return document_losses(model, rows, tiny_tokenizer, max_length=48, batch_size=4)

    trained(model, regularizers, windows, measure, tmp_path)
    after = everything(model)
    assert any(not torch.equal(after[n], before[n]) for n in before if "lora_" in n)
    assert all(torch.equal(after[n], before[n]) for n in before if "lora_" not in n)
