"""The confidence penalty against the paper's formula, number by number."""

import math

import pytest
import torch

from heldout.core.errors import UserError
from heldout.lm.linear_cross_entropy import linear_cross_entropy
from heldout.regularizers.confidence_penalty import ConfidencePenalty, confidence_penalty_term


def entropy(logits):
    total = math.fsum(math.exp(value) for value in logits)
    probabilities = [math.exp(value) / total for value in logits]
    return -math.fsum(p * math.log(p) for p in probabilities)


def test_subtracts_the_entropy_of_the_paper():
    torch.manual_seed(0)
    logits_NV = 4 * torch.randn(7, 11, dtype=torch.float64)
    expected = [-0.3 * entropy(row) for row in logits_NV.tolist()]
    found_N = confidence_penalty_term(logits_NV, None, 0.3)
    assert found_N.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_the_paper():
    """Pereyra et al., section 3.1: dH/dz_i = p_i (-log p_i - H)."""
    torch.manual_seed(1)
    logits_NV = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    confidence_penalty_term(logits_NV, None, 0.3).sum().backward()
    for row, gradient in zip(logits_NV.tolist(), logits_NV.grad.tolist(), strict=True):
        total = math.fsum(math.exp(value) for value in row)
        whole = entropy(row)
        for value, found in zip(row, gradient, strict=True):
            p = math.exp(value) / total
            assert found == pytest.approx(-0.3 * p * (-math.log(p) - whole), rel=1e-9)


def test_certain_predictions_get_a_finite_gradient():
    logits_NV = torch.tensor([[0.0, 1e4, -1e4]], requires_grad=True)
    nats_N = confidence_penalty_term(logits_NV, torch.tensor([1]), 0.1)
    nats_N.sum().backward()
    assert nats_N.item() == 0
    assert torch.equal(logits_NV.grad, torch.zeros(1, 3))


def test_weight_zero_equals_absent():
    torch.manual_seed(0)
    hidden_ND, weight_VD = torch.randn(4, 3), torch.randn(9, 3)
    targets_N = torch.randint(9, (4,))
    term = ConfidencePenalty(weight=0).token_loss
    found, _ = linear_cross_entropy(hidden_ND, weight_VD, targets_N, token_loss=[term])
    assert found == linear_cross_entropy(hidden_ND, weight_VD, targets_N)[0]


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_bad_values(weight):
    with pytest.raises(UserError, match=r"ConfidencePenalty\(weight=...\) must be 0 or more"):
        ConfidencePenalty(weight=weight)
