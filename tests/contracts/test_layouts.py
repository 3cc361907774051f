"""Every regularizer gives the same loss and gradient without padded tokens as with them."""

import pytest
import torch
from cases import build_case, case_names, case_of, load_case

from heldout.core.row import Row
from heldout.lm.flat_trial import padding
from heldout.lm.layout import current_layout
from heldout.training.steps import Steps
from heldout.training.windows import WindowDataset

TEXTS = ("Lists.", "The with statement wraps a block.", "Names refer to objects. " * 3, "Cats.")

NAMES = [name for name in case_names() if case_of(name).exact and case_of(name).trainer]


@pytest.fixture(scope="module")
def batches(tiny_tokenizer):
    rows = [
        Row(i, ({"role": "text", "content": TEXTS[i % 4]},), f"row-{i}", source=f"{i % 2}")
        for i in range(8)
    ]
    windows = WindowDataset(rows, tiny_tokenizer, 64)
    return [windows.collate([windows[i] for i in part]) for part in ((0, 1, 2), (3, 4, 5, 6, 7))]


def one_step(name, folder, batches, mode):
    """Loss, gradients, and whether the model saw the rows flat, of the second step."""
    model = load_case(name, folder)
    steps = Steps(model, build_case(name, folder), total_steps=4)
    optimizer = torch.optim.SGD(steps.parameter_groups(0.1))
    with steps.attached(), padding(mode):
        for _ in range(2):
            optimizer.zero_grad()
            loss = steps.gradient(batches)
            is_flat = current_layout().flat
            gradients = {
                n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
            }
            optimizer.step()
            steps.done(optimizer)
    return loss, gradients, is_flat


@pytest.mark.parametrize("name", NAMES)
def test_rows_laid_flat_have_the_loss_and_gradient_of_padded_ones(name, tiny_model_dir, batches):
    padded = one_step(name, tiny_model_dir, batches, "on")
    flat = one_step(name, tiny_model_dir, batches, "off")
    assert (padded[2], flat[2]) == (False, True)
    assert flat[0] == pytest.approx(padded[0], rel=1e-6)
    assert flat[1].keys() == padded[1].keys()
    largest = max(each.norm() for each in padded[1].values())
    for key, expected in padded[1].items():
        assert (flat[1][key] - expected).norm() <= 1e-4 * expected.norm() + 1e-6 * largest, key
