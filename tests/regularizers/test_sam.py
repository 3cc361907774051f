import copy

import pytest
import pytorch_optimizer
import torch
from torch import nn

from heldout.core.errors import UserError
from heldout.core.regularizer import Regularizer
from heldout.regularizers.asam import ASAM
from heldout.regularizers.sam import SAM, ascended, gradient_at_ascent
from heldout.training.compatible import check_together
from heldout.training.steps import Steps


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(5, 12, 5, dtype=torch.float64), torch.randint(3, (5, 12))


def loss_of(model, data, step):
    return nn.functional.cross_entropy(model(data[0][step]), data[1][step])


def gradient_of(model, data, step):
    def gradient(**kwargs):
        loss = loss_of(model, data, step)
        loss.backward()
        return loss.detach()

    return gradient


def test_five_steps_are_those_of_the_reference_optimizer(network, data):
    ours, theirs = network, copy.deepcopy(network)
    reference = pytorch_optimizer.SAM(
        theirs.parameters(), torch.optim.SGD, rho=0.05, adaptive=False, lr=0.3, momentum=0.9
    )
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.3, momentum=0.9)
    for step in range(5):

        def closure(step=step):
            reference.zero_grad()
            loss_of(theirs, data, step).backward()

        closure()
        reference.step(closure)
        loss = gradient_at_ascent(ours, gradient_of(ours, data, step), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        assert loss > 0
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        # It takes its norm in float32.
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_the_gradient_is_that_of_the_paper(network, data):
    """Equation 3 with its ball over all weights as one vector, through functional_call."""
    flat = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}

    def loss(weights):
        outputs = torch.func.functional_call(network, weights, (data[0][0],))
        return nn.functional.cross_entropy(outputs, data[1][0])

    first = dict(zip(flat, torch.autograd.grad(loss(flat), list(flat.values())), strict=True))
    norm = torch.cat([g.flatten() for g in first.values()]).norm()
    moved = {n: (p + 0.7 * first[n] / norm).detach().requires_grad_() for n, p in flat.items()}
    expected = torch.autograd.grad(loss(moved), list(moved.values()))
    before = copy.deepcopy(network.state_dict())
    returned = SAM(radius=0.7).around_gradient(network, gradient_of(network, data, 0), 0)
    torch.testing.assert_close(returned, loss(flat).detach())
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_weights_come_back_bit_for_bit_also_on_an_exception(network, data):
    before = copy.deepcopy(network.state_dict())
    pointers = [p.data_ptr() for p in network.parameters()]
    calls = []

    def failing():
        calls.append([p.detach().clone() for p in network.parameters()])
        if len(calls) == 2:
            raise RuntimeError("in the middle")
        return gradient_of(network, data, 0)()

    with pytest.raises(RuntimeError, match="in the middle"):
        gradient_at_ascent(network, failing, 0.05)
    assert not torch.equal(calls[0][0], calls[1][0])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [p.data_ptr() for p in network.parameters()] == pointers


def test_both_gradients_see_the_same_dropout_masks(tiny_model_dir):
    from transformers import AutoModelForCausalLM

    from heldout.regularizers.dropout import Dropout

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    losses = []

    class Watched(Regularizer):
        def around_gradient(self, model, gradient, step):
            losses.append(gradient())
            return losses[-1]

    # So small a radius that only the masks could make a difference.
    steps = Steps(model, [Dropout(hidden=0.5), SAM(radius=1e-9), Watched()])
    ids = torch.arange(20)[None] + 3
    with steps.attached():
        steps.gradient([{"input_ids": ids, "labels": ids}, {"input_ids": ids + 9, "labels": ids}])
    assert len(losses) == 2
    assert torch.equal(losses[0], losses[1])


def test_no_gradient_is_no_ascent():
    weights = [torch.ones(3)]
    assert torch.equal(ascended(weights, [torch.zeros(3)], 0.05)[0], weights[0])


def test_bad_values_and_its_relative_are_refused():
    with pytest.raises(UserError, match=r"SAM\(radius=...\) must be 0 or more, got -1"):
        SAM(radius=-1)
    with pytest.raises(UserError, match="SAM and ASAM do not go together"):
        check_together([SAM(), ASAM()])
