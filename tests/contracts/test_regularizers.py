"""What every regularizer must do, ours and those of others that are installed."""

import copy

import pytest
import torch
from cases import build_case, case_names, load_case
from transformers import Trainer, TrainingArguments

from heldout.core.discovery import build, entries_of
from heldout.core.regularizer import Cost
from heldout.core.row import Row
from heldout.training.attach import attach
from heldout.training.windows import WindowDataset

INSTALLED = [entry.name for entry in entries_of("regularizer")]
NAMES = case_names()
# Of different kinds of state that a resume must bring back; the others are tried among slow tests.
STATEFUL = ("ema", "swa", "rollback", "child_tuning", "gradual_unfreezing", "kl_to_base of pissa")


@pytest.fixture
def windows(tiny_tokenizer):
    rows = [
        Row(
            i,
            ({"role": "text", "content": f"Statement {i} is a statement. " * 2},),
            f"row-{i}",
            source=f"{i % 2}",
        )
        for i in range(8)
    ]
    return WindowDataset(rows, tiny_tokenizer, 48)


def train(model, windows, folder, regularizers, steps=6, resume=None, save=False):
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=steps,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_strategy="no",
        save_strategy="steps" if save else "no",
        save_steps=3,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=windows, data_collator=windows.collate
    )
    attach(trainer, regularizers, logit_free=True, evaluates=True, total_steps=6)
    trainer.train(resume_from_checkpoint=resume)
    found = weights(model)
    with trainer._heldout.evaluation_weights():
        return found | {f"{name}, measured": value for name, value in weights(model).items()}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def structure(model):
    """Everything an edit could leave behind: modules, hooks, numbers, parameter names."""
    return {
        name: (
            type(module).__name__,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            getattr(module, "p", None),
            getattr(module, "attention_dropout", None),
        )
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("name", INSTALLED)
def test_default_buildable_and_honest_about_cost(name):
    regularizer = build("regularizer", name, {})
    assert isinstance(regularizer.cost, Cost)
    assert build("regularizer", name, {}) == regularizer


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_model_as_found_also_on_an_exception(name, tiny_model_dir):
    model = load_case(name, tiny_model_dir)
    regularizer = build_case(name, tiny_model_dir)[-1]
    before, state = structure(model), copy.deepcopy(model.state_dict())
    names = list(model.state_dict())

    def fail():
        regularizer.prepare(model)
        with regularizer.attached(model):
            assert list(model.state_dict()) == names, "checkpoints would not load elsewhere"
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert structure(model) == before
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


@pytest.mark.parametrize(
    "name",
    [name if name in STATEFUL else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_trains_and_survives_a_resume_to_the_same_weights(name, tiny_model_dir, windows, tmp_path):
    model = load_case(name, tiny_model_dir)
    start = weights(model)
    whole = copy.deepcopy(model)
    first = train(whole, windows, tmp_path / "a", build_case(name, tiny_model_dir))
    assert any(not torch.equal(first[n], start[n]) for n in start)
    interrupted = copy.deepcopy(model)
    regularizers = build_case(name, tiny_model_dir)
    train(interrupted, windows, tmp_path / "b", regularizers, steps=3, save=True)
    resumed = train(
        copy.deepcopy(model),
        windows,
        tmp_path / "b",
        build_case(name, tiny_model_dir),
        resume=str(tmp_path / "b" / "checkpoint-3"),
    )
    for key, value in first.items():
        assert torch.equal(value, resumed[key]), key
