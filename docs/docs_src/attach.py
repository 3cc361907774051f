"""Regularizers on a Trainer of your own."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import heldout


def train(model_folder: Path, dataset: list[dict], output: Path) -> Trainer:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output), max_steps=4, report_to="none", use_cpu=True, disable_tqdm=True
        ),
        train_dataset=dataset,
    )
    heldout.attach(
        trainer,
        [
            heldout.WeightDecay(rate=1.0),
            heldout.Dropout(hidden=0.1),  # also where the model has no dropout modules
            heldout.LabelSmoothing(amount=0.1),  # never in eval_loss
        ],
    )
    trainer.train()
    return trainer
