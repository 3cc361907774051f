"""Weights on disk: what a model is saved as, and a training that had ended brought back."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

from heldout.core.regularizer import Regularizer
from heldout.lm.quantized import quantization_of
from heldout.training.attach import numbers_alone, saved_states
from heldout.training.steps import load_states


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights and tokenizer in Hugging Face form: an adapter folder, or a whole model.

    Beside an adapter on a quantized base lies how that was loaded.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if (quantization := quantization_of(model)) is not None:
        quantization.note_in(folder)


def load_weights(model: Any, folder: Path) -> None:
    """Put the weights of a checkpoint, or of what ``save_model`` wrote, into ``model``."""
    if isinstance(model, PeftModel):
        weights = load_file(folder / "adapter_model.safetensors")
        set_peft_model_state_dict(model, weights)
    else:
        for path in sorted(folder.glob("*.safetensors")):
            model.load_state_dict(load_file(path), strict=False)
        model.tie_weights()


def load_ended(model: Any, checkpoint: Path, regularizers: Sequence[Regularizer]) -> None:
    """Bring back a finished training: weights, and what the regularizers kept."""
    for regularizer in regularizers:
        regularizer.prepare(model)
    with numbers_alone(checkpoint):
        load_weights(model, checkpoint)
    load_states(model, regularizers, saved_states(checkpoint))


def last_step(folder: Path) -> int | None:
    """Step of the newest whole checkpoint in ``folder``; half-written ones are removed."""
    steps = []
    for path in folder.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():
            steps.append(int(path.name.split("-")[1]))
        else:
            shutil.rmtree(path)
    return max(steps, default=None)
