"""What every regularizer must do whatever the loop: divide rightly, follow its schedule."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from cases import build_case, case_names, case_of, load_case, parameters_of, plugin_of
from torch.nn.modules.module import register_module_forward_hook
from transformers import AutoTokenizer

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.layers import decoder_layers
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

NAMES = case_names()
TRAINABLE = [name for name in NAMES if case_of(name).trainer]
EXACT = [name for name in TRAINABLE if case_of(name).exact]
TEXTS = (
    "The with statement wraps a block.",
    "Lists.",
    "A for loop goes through an iterable, item by item. " * 3,
    "Names refer to objects.",
)
NUM_STEPS = 3


@pytest.fixture(scope="module")
def windows(tiny_model_dir):
    rows = [
        Row(i, ({"role": "text", "content": f"{TEXTS[i % 4]} {i}"},), f"row-{i}", f"{i % 2}")
        for i in range(4 * NUM_STEPS)
    ]
    return WindowDataset(rows, AutoTokenizer.from_pretrained(tiny_model_dir), 64)


def trained(name, folder, windows, *, regularizers=None, size=4, context=nullcontext, steps=3):
    """Trained weights after steps of four rows, cut into micro-batches of ``size``."""
    model = load_case(name, folder)
    if context == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        context = nullcontext
    chosen = build_case(name, folder) if regularizers is None else regularizers
    runner = Steps(model, chosen, total_steps=NUM_STEPS)
    torch.manual_seed(0)
    with runner.attached():
        optimizer = torch.optim.SGD(runner.parameter_groups(0.1))
        for step in range(steps):
            items = [windows[4 * step + i] for i in range(4)]
            window = [windows.collate(items[i : i + size]) for i in range(0, 4, size)]
            for batch in window:
                del batch["row_index"]
            with context():
                runner.gradient(window)
            optimizer.step()
            runner.done(optimizer)
            optimizer.zero_grad()
    with runner.evaluation_weights():
        return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for key, value in one.items():
        difference = (value - other[key]).abs().max().item()
        assert difference <= tolerance, f"{key} differs by {difference}"


@pytest.mark.parametrize("name", EXACT)
def test_one_batch_of_four_is_four_micro_batches(name, tiny_model_dir, windows):
    """Rows of very unequal length: a mean of means would be wrong."""
    one = trained(name, tiny_model_dir, windows)
    assert_close(one, trained(name, tiny_model_dir, windows, size=1), 2e-6)


@pytest.mark.parametrize("name", TRAINABLE)
def test_gradient_checkpointing_changes_nothing(name, tiny_model_dir, windows):
    plain = trained(name, tiny_model_dir, windows, size=2)
    again = trained(name, tiny_model_dir, windows, size=2, context="checkpointing")
    assert_close(plain, again, 2e-6)


@pytest.mark.parametrize("name", TRAINABLE)
def test_bfloat16_autocast_stays_near_float32(name, tiny_model_dir, windows):
    exact = trained(name, tiny_model_dir, windows, size=2)
    half = trained(
        name,
        tiny_model_dir,
        windows,
        size=2,
        context=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    start = dict(load_case(name, tiny_model_dir).named_parameters())
    moved = sum(((exact[n] - start[n]) ** 2).sum() for n in exact) ** 0.5
    apart = sum(((exact[n] - half[n]) ** 2).sum() for n in exact) ** 0.5
    assert moved > 0
    assert apart < 0.2 * moved


@pytest.mark.parametrize("name", TRAINABLE)
def test_costs_the_passes_that_it_says(name, tiny_model_dir, windows):
    model = load_case(name, tiny_model_dir)
    regularizers = build_case(name, tiny_model_dir)
    costs = [regularizer.cost for regularizer in regularizers]
    window = [windows.collate([windows[i], windows[i + 1]]) for i in (0, 2)]
    for batch in window:
        del batch["row_index"]
    forwards, backwards = [], []

    last = decoder_layers(model)[-1]

    def count(layer, inputs, output):
        # The model's, and those of models of its kind that it learns from.
        if type(layer) is not type(last) or layer.self_attn.layer_idx != last.self_attn.layer_idx:
            return
        forwards.append(1)
        if output.requires_grad:
            output.register_hook(lambda gradient: backwards.append(1))

    steps = Steps(model, regularizers, total_steps=NUM_STEPS)
    with steps.attached():
        handle = register_module_forward_hook(count)
        try:
            steps.gradient(window)
        finally:
            handle.remove()
    runs = len(window) * math.prod(cost.windows for cost in costs)
    assert len(forwards) == runs * (1 + sum(cost.forwards for cost in costs))
    assert len(backwards) == runs * (1 + sum(cost.backwards for cost in costs))


def scheduled(name, schedule, folder):
    """The case with a schedule of its strength, and the same without the regularizer."""
    others = [build("regularizer", *other) for other in case_of(name).beside]
    parameters = {**parameters_of(name, folder), "schedule": schedule}
    return [*others, build("regularizer", plugin_of(name), parameters)], others


@pytest.mark.parametrize("name", NAMES)
def test_a_strength_that_rises_from_nothing_starts_at_nothing(name, tiny_model_dir, windows):
    probe = build("regularizer", plugin_of(name), case_of(name).parameters)
    if not probe.STRENGTH:
        with pytest.raises(UserError, match="has no strength to schedule"):
            build("regularizer", plugin_of(name), {**case_of(name).parameters, "schedule": "rise"})
        return
    rising, others = scheduled(name, "rise", tiny_model_dir)
    first = trained(name, tiny_model_dir, windows, regularizers=rising, steps=1)
    without = trained(name, tiny_model_dir, windows, regularizers=others, steps=1)
    assert_close(first, without, 1e-7)
    rising, _ = scheduled(name, "rise", tiny_model_dir)
    later = trained(name, tiny_model_dir, windows, regularizers=rising)
    absent = trained(name, tiny_model_dir, windows, regularizers=copy.deepcopy(others))
    assert any(not torch.equal(later[key], absent[key]) for key in later)
