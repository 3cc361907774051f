"""What ``attach`` uses of transformers' Trainer and TRL's that is not promised to anybody.

Each is named here, so that a release which renames one fails in this file, with its name, and not
in a user's training.
"""

import ast
import inspect
import re
from pathlib import Path

import pytest
from transformers import Trainer

import heldout

# Methods with the parameters that are given by name or place.
METHODS = {
    "train": ("resume_from_checkpoint",),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "evaluate": (),
    "predict": (),
    "save_model": ("output_dir", "_internal_call"),
    "create_optimizer": (),
    "get_train_dataloader": (),
    "_save_checkpoint": (),
    "_prepare_inputs": ("inputs",),
}
# Attributes, with words of the Trainer's source that give them the meaning that is relied on.
ATTRIBUTES = {
    "model_accepts_loss_kwargs": r"if self\.model_accepts_loss_kwargs",
    "_loss_shifts_labels": r"if self\._loss_shifts_labels",
    "current_gradient_accumulation_steps": r"= len\(batch_samples\)",
    "accelerator": r"self\.accelerator\.gradient_state\._set_sync_gradients\(do_sync_step\)",
    "data_collator": r"data_collator = self\.data_collator",
    "optimizer": r"self\.optimizer =",
    "args": r"self\.args\.average_tokens_across_devices",
    "state": r"self\.state\.global_step",
    "model": r"self\.model =",
}
OF_TRL = {"_total_train_tokens": "+=", "_metrics": '["train"]'}
CALLS = (  # the Trainer must call them itself, or what is overridden is never reached
    r"self\.training_step\(",
    r"self\.compute_loss\(",
    r"self\._save_checkpoint\(",
    r"self\.create_optimizer\(",
    r"self\.get_train_dataloader\(",
    r"callback_handler\.on_step_begin\(",
    r"callback_handler\.on_optimizer_step\(",
    r"self\.save_model\([^)]*_internal_call=True",
)


@pytest.fixture(scope="module")
def source():
    return inspect.getsource(Trainer)


@pytest.mark.parametrize("name", METHODS)
def test_the_trainer_has_the_method(name):
    parameters = inspect.signature(getattr(Trainer, name)).parameters
    assert set(METHODS[name]) <= set(parameters)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_trainer_has_the_attribute(source, name):
    assert re.search(ATTRIBUTES[name], source)


@pytest.mark.parametrize("call", CALLS)
def test_the_trainer_calls_what_is_overridden(source, call):
    assert re.search(call, source)


@pytest.mark.parametrize("name", OF_TRL)
def test_trl_counts_tokens_where_they_are_set(name):
    sft_trainer = pytest.importorskip("trl.trainer.sft_trainer")
    lines = inspect.getsource(sft_trainer.SFTTrainer).splitlines()
    assert any(name in line for line in lines)


def test_nothing_else_of_the_trainer_is_used():
    """Read off the file, so that a part that comes to be used is named above."""
    module = inspect.getsourcefile(inspect.unwrap(heldout.attach))
    tree = ast.parse(Path(module).read_text())
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "_Attached":
            used |= {n.attr for n in ast.walk(node) if _of_the_trainer(n)}
        if isinstance(node, ast.FunctionDef) and node.name == "attach":
            used |= {
                n.attr
                for n in ast.walk(node)
                if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "trainer"
            }
    ours = {name for name in used if name.startswith("_heldout")}
    public = {"add_callback", "__class__"}
    assert used - ours - public == METHODS.keys() | ATTRIBUTES.keys() | OF_TRL.keys()


def _of_the_trainer(node):
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
