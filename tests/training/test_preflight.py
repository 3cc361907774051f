from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from heldout.core.recipe import Recipe
from heldout.regularizers.ema import EMA
from heldout.regularizers.sam import SAM
from heldout.regularizers.weight_decay import WeightDecay
from heldout.training.cost import added_bytes
from heldout.training.preflight import memory_needed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_counts_the_copies_of_regularizers(dtype, tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=dtype)
    number = sum(p.numel() for p in model.parameters())
    size = torch.finfo(dtype).bits // 8
    # An average is float32 whatever the weights are; SAM's second copy is like them.
    assert added_bytes([EMA(), SAM(), WeightDecay()], model) == number * (4 + size)
    windows = SimpleNamespace(longest=64)
    plain = memory_needed(model, windows, Recipe(), [], 400)
    both = memory_needed(model, windows, Recipe(), [EMA(), SAM()], 400)
    assert both - plain == number * (4 + size)
