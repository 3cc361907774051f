"""z-loss against its formula, number by number."""

import math

import pytest
import torch

from heldout.core.errors import UserError
from heldout.lm.linear_cross_entropy import linear_cross_entropy
from heldout.regularizers.z_loss import ZLoss, z_loss_term


def slow_twin(logits, weight):
    return weight * math.log(math.fsum(math.exp(value) for value in logits)) ** 2


def test_equals_the_formula_and_its_derivative():
    torch.manual_seed(0)
    logits_NV = (4 * torch.randn(7, 11, dtype=torch.float64)).requires_grad_()
    nats_N = z_loss_term(logits_NV, None, 1e-2)
    expected = [slow_twin(row, 1e-2) for row in logits_NV.tolist()]
    assert nats_N.tolist() == pytest.approx(expected, rel=1e-12)
    (gradient_NV,) = torch.autograd.grad(nats_N.sum(), logits_NV)
    log_z_N1 = logits_NV.logsumexp(1, keepdim=True)
    torch.testing.assert_close(gradient_NV, 2e-2 * log_z_N1 * logits_NV.softmax(1))


def test_a_shift_of_all_logits_matters_to_it_alone():
    logits_NV = torch.zeros(1, 5)
    assert z_loss_term(logits_NV - math.log(5), None, 1.0).item() == pytest.approx(0, abs=1e-9)
    assert z_loss_term(logits_NV + 3, None, 1.0).item() == pytest.approx((3 + math.log(5)) ** 2)


def test_weight_zero_equals_absent_and_the_schedule_scales():
    torch.manual_seed(0)
    hidden_ND, weight_VD = torch.randn(4, 3), torch.randn(9, 3)
    targets_N = torch.randint(9, (4,))
    absent, _ = linear_cross_entropy(hidden_ND, weight_VD, targets_N)
    for term in (ZLoss(weight=0), ZLoss(weight=1.0, schedule="rise")):
        found, _ = linear_cross_entropy(
            hidden_ND, weight_VD, targets_N, token_loss=[term.token_loss]
        )
        assert found == absent
    rising = ZLoss(weight=1.0, schedule="rise")
    rising.set_progress(0.5)
    logits_NV = hidden_ND @ weight_VD.T
    expected_N = z_loss_term(logits_NV, targets_N, 0.5)
    assert torch.equal(rising.token_loss(logits_NV, targets_N), expected_N)


@pytest.mark.parametrize("weight", [-1e-4, math.nan])
def test_bad_values(weight):
    with pytest.raises(UserError, match=r"ZLoss\(weight=...\) must be 0 or more"):
        ZLoss(weight=weight)
