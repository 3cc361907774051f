import copy

import pytest
import pytorch_optimizer
import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.regularizers.asam import ASAM, adaptively_ascended


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def without_biases():
    torch.manual_seed(0)
    layers = nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False)
    return nn.Sequential(*layers).double()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(5, 12, 5, dtype=torch.float64), torch.randint(3, (5, 12))


def loss_of(model, data, step):
    return nn.functional.cross_entropy(model(data[0][step]), data[1][step])


def stepped(model, data, regularizer):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(5):

        def gradient(step=step):
            loss = loss_of(model, data, step)
            loss.backward()
            return loss.detach()

        regularizer.around_gradient(model, gradient, step)
        optimizer.step()
        optimizer.zero_grad()
    return list(model.parameters())


def test_without_eta_five_steps_are_those_of_the_adaptive_reference(without_biases, data):
    theirs = copy.deepcopy(without_biases)
    reference = pytorch_optimizer.SAM(
        theirs.parameters(), torch.optim.SGD, rho=0.5, adaptive=True, lr=0.1
    )
    for step in range(5):

        def closure(step=step):
            reference.zero_grad()
            loss_of(theirs, data, step).backward()

        closure()
        reference.step(closure)
    ours = stepped(without_biases, data, ASAM(radius=0.5, eta=0))
    for one, other in zip(ours, theirs.parameters(), strict=True):
        # It takes its norm in float32.
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_the_ascent_is_that_of_the_paper():
    """epsilon = rho T^2 g / ||T g||, number by number, with T of the paper's appendix."""
    torch.manual_seed(2)
    weights = [torch.randn(3, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)]
    gradients = [torch.randn_like(w) for w in weights]
    pairs = [
        (float(w), float(g))
        for weight, gradient in zip(weights, gradients, strict=True)
        for w, g in zip(weight.flatten(), gradient.flatten(), strict=True)
    ]
    norm = sum(((abs(w) + 0.01) * g) ** 2 for w, g in pairs) ** 0.5
    expected = [w + 2.0 * (abs(w) + 0.01) ** 2 * g / norm for w, g in pairs]
    found = adaptively_ascended(weights, gradients, 2.0)
    flat = torch.cat([value.flatten() for value in found])
    torch.testing.assert_close(
        flat, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_biases_climb_as_far_as_their_gradient_says(network, data):
    loss_of(network, data, 0).backward()
    squares, scales = 0.0, {}
    for name, parameter in network.named_parameters():
        scale = torch.ones_like(parameter) if "bias" in name else parameter.abs() + 0.01
        scales[name] = scale.detach()
        squares += float((scales[name] * parameter.grad).square().sum())
    expected = {
        n: p.detach() + 0.5 * scales[n] ** 2 * p.grad / squares**0.5
        for n, p in network.named_parameters()
    }
    seen = []

    def gradient():
        seen.append({n: p.detach().clone() for n, p in network.named_parameters()})
        loss = loss_of(network, data, 0)
        loss.backward()
        return loss.detach()

    network.zero_grad()
    ASAM(radius=0.5).around_gradient(network, gradient, 0)
    for name, value in expected.items():
        torch.testing.assert_close(seen[1][name], value, rtol=1e-10, atol=1e-12)


def test_rescaling_two_layers_changes_the_perturbed_loss_as_little_as_the_loss():
    """A linear network w2 (w1 x): ASAM's worst loss is that of (w2 / c) (c w1 x); SAM's is not."""
    torch.manual_seed(3)
    first, second = (
        torch.randn(4, 5, dtype=torch.float64),
        torch.randn(1, 4, dtype=torch.float64),
    )
    x = torch.randn(5, 7, dtype=torch.float64)

    def worst(factor):
        weights = [(w * s).requires_grad_() for w, s in ((first, factor), (second, 1 / factor))]
        loss = (weights[1] @ weights[0] @ x).square().mean()
        gradients = torch.autograd.grad(loss, weights)
        moved = adaptively_ascended(weights, gradients, 0.5, eta=0)
        return (moved[1] @ moved[0] @ x).square().mean()

    torch.testing.assert_close(worst(1.0), worst(8.0), rtol=1e-10, atol=0)


def test_bad_values_are_refused():
    with pytest.raises(UserError, match=r"ASAM\(radius=...\) must be 0 or more, got -2"):
        ASAM(radius=-2)
    with pytest.raises(UserError, match=r"ASAM\(eta=...\) must be 0 or more, got -1"):
        ASAM(eta=-1)
