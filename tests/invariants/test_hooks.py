"""The hooks around a step, and a regularizer's own state, through a save and a resume."""

from dataclasses import dataclass, field

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from heldout.core.regularizer import Regularizer
from heldout.core.row import Row
from heldout.training.attach import attach
from heldout.training.windows import WindowDataset


@dataclass(frozen=True)
class Average(Regularizer):
    """A running mean of one weight, with a record of when it was called."""

    calls: list = field(default_factory=list)
    mean: dict = field(default_factory=dict)

    def before_step(self, model, step):
        self.calls.append(("before", step))

    def after_step(self, model, step, rates):
        self.calls.append(("after", step))
        assert set(rates) == {name for name, _ in model.named_parameters()}
        assert all(rate == 1e-2 for rate in rates.values())
        weight = model.get_input_embeddings().weight.detach()
        old = self.mean.get("weight", torch.zeros_like(weight))
        self.mean["weight"] = 0.5 * old + 0.5 * weight

    def state_dict(self):
        return dict(self.mean)

    def load_state_dict(self, state):
        self.mean.update(state)


def train(model_dir, tokenizer, folder, steps, resume=None):
    rows = [
        Row(i, ({"role": "text", "content": f"Row {i} of the statement."},), f"row-{i}")
        for i in range(8)
    ]
    windows = WindowDataset(rows, tokenizer, 32)
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=steps,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            save_steps=2,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=windows,
        data_collator=windows.collate,
    )
    average = Average()
    attach(trainer, [average], logit_free=True)
    trainer.train(resume_from_checkpoint=resume)
    return average


def test_each_hook_comes_once_a_step_and_state_survives(tiny_model_dir, tiny_tokenizer, tmp_path):
    whole = train(tiny_model_dir, tiny_tokenizer, tmp_path / "whole", 4)
    # Once per optimizer step, though each has two micro-batches.
    assert whole.calls == [(when, step) for step in range(4) for when in ("before", "after")]
    train(tiny_model_dir, tiny_tokenizer, tmp_path / "cut", 2)
    resumed = train(
        tiny_model_dir, tiny_tokenizer, tmp_path / "cut", 4, str(tmp_path / "cut" / "checkpoint-2")
    )
    assert resumed.calls == [(when, step) for step in (2, 3) for when in ("before", "after")]
    assert torch.equal(resumed.mean["weight"], whole.mean["weight"])
