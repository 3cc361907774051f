"""What a model is asked in a trial: short rows of plain tokens, which leave it as it was."""

# B rows, T tokens

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from heldout.lm.undisturbed import random_state, replayed


def plain_ids(model: Any, num: int) -> list[int]:
    """Token ids spread over the vocabulary, none of which the configuration names for a use."""
    size = model.get_input_embeddings().weight.shape[0]
    config = model.config.get_text_config()
    named = {value for name, value in vars(config).items() if re.search(r"_(id|index)$", name)}
    plain = [index for index in range(size) if index not in named] or [0]
    return [plain[place * len(plain) // num] for place in range(num)]


def trial_inputs(model: Any, ids_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arguments of a call with these tokens, none of them padding."""
    ids_BT = ids_BT.to(next(model.parameters()).device)
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


@contextmanager
def training_trial(model: Any) -> Iterator[None]:
    """Within this context the model is in training mode; that and random numbers are put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        with replayed(random_state(next(model.parameters()).device)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
