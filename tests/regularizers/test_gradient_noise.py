import pytest
import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.regularizers.gradient_noise import GradientNoise, add_gradient_noise, noise_variance


def noise_at(step, model=None, **parameters):
    """What the regularizer adds to a gradient of zeros."""
    model = nn.Linear(200, 300) if model is None else model

    def gradient(**kwargs):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return torch.tensor(1.5)

    loss = GradientNoise(**parameters).around_gradient(model, gradient, step)
    assert loss == 1.5
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("step", [0, 1, 99])
def test_the_variance_is_that_of_the_paper(step):
    noise = noise_at(step, variance=0.3)
    expected = 0.3 / (1 + step) ** 0.55
    assert noise_variance(0.3, 0.55, step) == pytest.approx(expected)
    # Of 60,300 normal numbers: standard errors of .0041 sigma and of .58 % of the variance.
    assert abs(noise.mean()) < 4 * 0.0041 * expected**0.5
    assert noise.var() == pytest.approx(expected, rel=0.025)
    assert (noise.abs() > 2 * expected**0.5).float().mean() == pytest.approx(0.0455, abs=0.004)


def test_numbers_follow_from_seed_step_and_place_alone():
    first = noise_at(3, seed=1, variance=0.01)
    torch.manual_seed(99)
    assert torch.equal(noise_at(3, seed=1, variance=0.01), first)
    for other in (noise_at(4, seed=1, variance=0.01), noise_at(3, seed=2, variance=0.01)):
        assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 0.02
    model = nn.ModuleList([nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False)])
    one, two = noise_at(3, model, variance=0.01).chunk(2)
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.1


def test_a_weight_has_its_own_noise_whatever_else_is_trained():
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 20))
    whole = noise_at(3, model, variance=0.01)
    model[0].requires_grad_(False)
    model.zero_grad()

    def gradient(**kwargs):
        for parameter in model[1].parameters():
            parameter.grad = torch.zeros_like(parameter)
        return torch.zeros(())

    GradientNoise(variance=0.01).around_gradient(model, gradient, 3)
    upper = torch.cat([p.grad.flatten() for p in model[1].parameters()])
    assert torch.equal(upper, whole[-len(upper) :])


def test_it_is_added_to_what_is_there_and_to_nothing_else():
    model = nn.Linear(4, 3)
    model.bias.requires_grad_(False)
    model.weight.grad = torch.full_like(model.weight, 5.0)
    add_gradient_noise(dict(model.named_parameters()), 1e-6, 0, 0)
    assert model.bias.grad is None
    assert (model.weight.grad - 5).abs().max() < 0.01
    assert not torch.equal(model.weight.grad, torch.full_like(model.weight, 5.0))


def test_bad_values_are_refused():
    with pytest.raises(UserError, match=r"GradientNoise\(variance=...\) must be 0 or more, got -1"):
        GradientNoise(variance=-1)
    with pytest.raises(UserError, match=r"GradientNoise\(decay=...\) must be 0 or more"):
        GradientNoise(decay=-0.1)
