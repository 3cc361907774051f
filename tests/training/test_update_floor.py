"""Rates whose steps are lost in rounding are refused, and the floor is where steps are lost."""

import pytest
import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.training.update_floor import check_update_floor, update_floor


def layer(dtype, size=0.02):
    generator = torch.Generator().manual_seed(0)
    made = nn.Linear(64, 64)
    with torch.no_grad():
        made.weight.copy_(size * torch.randn(64, 64, generator=generator))
        made.bias.zero_()
    return made.to(dtype)


def moved_share(model, rate):
    """Share of weights that one step of Adam with gradients of one size changes."""
    before = model.weight.detach().clone()
    optimizer = torch.optim.Adam([model.weight], lr=rate)
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    return (model.weight != before).float().mean().item()


def test_most_weights_stay_below_the_floor_and_move_well_above_it():
    floor = update_floor(layer(torch.bfloat16))
    assert moved_share(layer(torch.bfloat16), floor / 2) < 0.4
    assert moved_share(layer(torch.bfloat16), floor * 8) > 0.9


def test_the_papers_rate_is_lost_in_bfloat16_and_kept_in_float32():
    assert moved_share(layer(torch.float32), 1e-6) > 0.99
    check_update_floor(layer(torch.float32), 1e-6)
    with pytest.raises(UserError, match=r"at least 3e-05 for weights in bfloat16.*got 1e-06"):
        check_update_floor(layer(torch.bfloat16), 1e-6)


def test_the_floor_goes_with_the_size_of_the_weights():
    small, large = update_floor(layer(torch.float32)), update_floor(layer(torch.float32, 2.0))
    assert large == pytest.approx(100 * small, rel=1e-4)


def test_frozen_weights_and_zeros_have_no_say():
    model = nn.Sequential(layer(torch.float32, 50.0), layer(torch.float32))
    model[0].requires_grad_(False)
    assert update_floor(model) == pytest.approx(update_floor(layer(torch.float32)))
    for parameter in model[1].parameters():
        parameter.data.zero_()
    assert update_floor(model) == 0
