"""What the Trainer is told for a recipe, and launchers under which there is no run."""

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.training.arguments import optimizer_arguments


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "without DeepSpeed: start it without a launcher"),
        ("ACCELERATE_USE_FSDP", "true", "without FSDP: start it without a launcher"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", r"without torch\.compile: start it without"),
        ("WORLD_SIZE", "2", "without torchrun: start it without a launcher, or use heldout"),
    ],
)
def test_launchers_are_refused_by_name(name, value, words, monkeypatch):
    assert optimizer_arguments(Recipe(), [])["lr_scheduler_type"] == "constant_with_warmup"
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        optimizer_arguments(Recipe(), [])
