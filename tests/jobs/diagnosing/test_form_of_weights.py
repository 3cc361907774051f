"""A schedule-free training is measured on its average; a checkpoint without it is told of."""

import logging

import pytest
import torch
from transformers import Trainer, TrainingArguments

import heldout
from heldout.jobs.diagnosing.from_model import _form_of_weights
from heldout.lm.load import load_model

TEXTS = [f"Statement {i} is a statement of its own." for i in range(8)]


@pytest.fixture
def train(tiny_model_dir, tmp_path):
    def run(optim, **options):
        loaded = load_model(str(tiny_model_dir), device="cpu")
        ids = torch.tensor(loaded.tokenizer(TEXTS[0])["input_ids"])
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=6,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            optim=optim,
            warmup_steps=2,
            lr_scheduler_type="constant",
            save_steps=6,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
            **options,
        )
        rows = [{"input_ids": ids, "labels": ids}] * 16
        callback = heldout.DiagnoseCallback(TEXTS, TEXTS, loaded.tokenizer, out=tmp_path / "log")
        trainer = Trainer(
            loaded.model,
            arguments,
            train_dataset=rows,
            eval_dataset=rows[:2],
            processing_class=loaded.tokenizer,
            callbacks=[callback],
        )
        trainer.train()
        return trainer, callback

    return run


def test_the_average_is_measured_and_the_weights_are_left_as_found(train, caplog):
    with caplog.at_level(logging.WARNING, "heldout"):
        trainer, callback = train("schedule_free_adamw")
    assert "call trainer.optimizer.eval() before it is saved" in caplog.text
    at_gradient = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    again = callback.measure(trainer.model, trainer.state, trainer.optimizer)
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, at_gradient[name])
    trainer.optimizer.eval()
    average = callback.measure(trainer.model, trainer.state)
    assert callback.entries[-3]["train_nll"] == again["train_nll"] == average["train_nll"]
    for name, parameter in trainer.model.named_parameters():
        parameter.data.copy_(at_gradient[name])
    assert callback.measure(trainer.model, trainer.state)["train_nll"] != average["train_nll"]


@pytest.mark.parametrize(
    ("optim", "options", "is_told"),
    [
        ("schedule_free_adamw", {}, True),
        ("schedule_free_adamw", {"eval_strategy": "steps", "eval_steps": 3}, False),
        ("adamw_torch", {}, False),
    ],
)
def test_a_checkpoint_of_the_gradient_point_is_told(optim, options, is_told, train, caplog):
    trainer, _ = train(optim, **options)
    told = _form_of_weights(trainer.args.output_dir)
    assert bool(told) == is_told
    if is_told:
        assert told[0].startswith("checkpoint-6 holds the point of the gradient, not the average")
        assert _form_of_weights(f"{trainer.args.output_dir}/checkpoint-6") == told
