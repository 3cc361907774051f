import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from heldout.core.errors import UserError
from heldout.regularizers.l2_penalty import L2Penalty
from heldout.regularizers.l2_sp import L2SP
from heldout.regularizers.mixout import Mixout, gradient_at_mixture, mixed
from heldout.training.steps import Steps


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(12, 5, dtype=torch.float64), torch.randint(3, (12,))


def gradient_of(model, data, seen):
    def gradient(**kwargs):
        seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        loss = nn.functional.cross_entropy(model(data[0]), data[1])
        loss.backward()
        return loss.detach()

    return gradient


def moved(model):
    anchors = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return anchors


def test_the_gradient_flows_through_the_paper_s_formula(network, data):
    """Number by number, by autograd: the factor 1 / (1 - p) is in the backward as well."""
    share = 0.3
    anchors = moved(network)
    before = copy.deepcopy(network.state_dict())
    seen = []
    loss = gradient_at_mixture(network, anchors, gradient_of(network, data, seen), share, 5, 2)
    leaves = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    mixture, num_masked = {}, 0
    for name, leaf in leaves.items():
        entries = []
        for w, w0, m in zip(
            leaf.flatten(), anchors[name].flatten(), seen[0][name].flatten(), strict=True
        ):
            mask = 1 if torch.isclose(m, w0, rtol=1e-9, atol=1e-12) else 0
            num_masked += mask
            entries.append((mask * w0 + (1 - mask) * w - share * w0) / (1 - share))
        mixture[name] = torch.stack(entries).view_as(leaf)
        torch.testing.assert_close(mixture[name].detach(), seen[0][name], rtol=1e-12, atol=1e-14)
    assert 0.1 < num_masked / 75 < 0.5
    outputs = torch.func.functional_call(network, mixture, (data[0],))
    expected_loss = nn.functional.cross_entropy(outputs, data[1])
    expected = torch.autograd.grad(expected_loss, list(leaves.values()))
    torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-12, atol=0)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_expected_weight_is_the_weight():
    weight, anchor = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    shape = (100_000, 2)
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(0)) >= 0.7
    mixture = mixed(weight.expand(shape), anchor.expand(shape), kept, 0.7)
    torch.testing.assert_close(mixture.mean(0), weight, rtol=0, atol=0.08)
    assert set(mixture[:, 0].unique().tolist()) == {0.5, 5.5}


def test_the_share_and_the_masks_follow_from_seed_and_step():
    model = nn.Linear(100, 100)
    anchors = moved(model)
    before = model.weight.detach().clone()

    def mask(**where):
        seen = []

        def gradient():
            seen.append(model.weight.detach() == anchors["weight"])
            return torch.zeros(())

        gradient_at_mixture(model, anchors, gradient, 0.7, **where)
        return seen[0]

    first = mask(seed=0, step=3)
    assert first.float().mean() == pytest.approx(0.7, abs=0.02)
    torch.manual_seed(9)
    assert torch.equal(mask(seed=0, step=3), first)
    for other in (mask(seed=0, step=4), mask(seed=1, step=3)):
        assert (first & other).float().mean() == pytest.approx(0.49, abs=0.03)
    assert torch.equal(model.weight, before)


def test_a_weight_has_its_own_mask_whatever_else_is_trained():
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    anchors = moved(model)

    def mask():
        seen = []

        def gradient():
            seen.append(model[1].weight.detach() == anchors["1.weight"])
            return torch.zeros(())

        gradient_at_mixture(model, anchors, gradient, 0.5, 0, 0)
        return seen[0]

    first = mask()
    model[0].requires_grad_(False)
    assert torch.equal(mask(), first)


def test_the_penalty_beside_it_pulls_at_its_own_rate(tiny_model_dir):
    """Its gradient is that of the weights, not of the mixture."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64)
    ids = torch.arange(3, 15)[None]
    batch = {"input_ids": ids, "labels": ids}

    def gradients(regularizers):
        anchored = copy.deepcopy(model)
        steps = Steps(anchored, regularizers)
        torch.manual_seed(0)
        moved(anchored)
        steps.gradient([dict(batch)])
        return {n: p.grad for n, p in anchored.named_parameters()}, anchored

    alone, trained = gradients([Mixout(share=0.7)])
    for penalty in (L2SP(rate=0.1, decoupled=False), L2Penalty(rate=0.1)):
        both, _ = gradients([penalty, Mixout(share=0.7)])
        for name, parameter in trained.named_parameters():
            pull = parameter.detach()
            if isinstance(penalty, L2SP):
                pull = pull - model.get_parameter(name).detach()
            torch.testing.assert_close(both[name] - alone[name], 0.1 * pull, rtol=1e-5, atol=1e-8)


def test_weights_come_back_bit_for_bit_after_an_exception(network, data):
    regularizer = Mixout()
    regularizer.prepare(network)
    moved(network)
    before = copy.deepcopy(network.state_dict())

    def failing():
        assert not torch.equal(network[0].weight, before["0.weight"])
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        regularizer.around_gradient(network, failing, 0)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_adapters_and_bad_values_are_refused(tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(UserError, match=r"use dropout\.adapter, or train with model\.method"):
        Mixout().check(adapted, None)
    with pytest.raises(UserError, match=r"Mixout\(share=...\) must be at least 0 and under 1"):
        Mixout(share=1)
