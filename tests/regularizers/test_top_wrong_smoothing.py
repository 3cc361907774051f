"""Top-wrong smoothing against the cross-entropy with the written-out target distribution."""

import pytest
import torch
import torch.nn.functional as F

from heldout.core.errors import UserError
from heldout.lm.linear_cross_entropy import linear_cross_entropy
from heldout.regularizers.top_wrong_smoothing import TopWrongSmoothing, top_wrong_smoothing_term


def smoothed_target(logits, target, amount, top):
    """1 - amount on the target, amount / top on each of the likeliest others."""
    wrong = [token for token in range(len(logits)) if token != target]
    likeliest = sorted(wrong, key=lambda token: -logits[token])[:top]
    share = torch.zeros(len(logits), dtype=torch.float64)
    share[target] = 1 - amount
    for token in likeliest:
        share[token] = amount / len(likeliest)
    return share


@pytest.mark.parametrize("top", [1, 3, 10, 50])
def test_value_and_gradient_are_those_of_the_smoothed_target(top):
    torch.manual_seed(0)
    logits_NV = (4 * torch.randn(7, 11, dtype=torch.float64)).requires_grad_()
    targets_N = torch.randint(11, (7,))
    targets_N[0] = logits_NV[0].argmax()  # a target among the likeliest
    found_N = F.cross_entropy(logits_NV, targets_N, reduction="none") + top_wrong_smoothing_term(
        logits_NV, targets_N, 0.15, top
    )
    targets_NV = torch.stack(
        [smoothed_target(logits_NV[n].tolist(), int(targets_N[n]), 0.15, top) for n in range(7)]
    )
    torch.testing.assert_close(targets_NV.sum(1), torch.ones(7, dtype=torch.float64))
    expected_N = -(targets_NV * logits_NV.log_softmax(1)).sum(1)
    torch.testing.assert_close(found_N, expected_N, rtol=1e-12, atol=1e-12)
    gradient, expected = (
        torch.autograd.grad(nats_N.sum(), logits_NV)[0] for nats_N in (found_N, expected_N)
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_with_all_wrong_tokens_it_is_uniform_smoothing_over_the_others():
    torch.manual_seed(1)
    logits_NV, targets_N = torch.randn(5, 9, dtype=torch.float64), torch.randint(9, (5,))
    # Mass a over the 8 others is torch's smoothing of 9/8 a, which reaches the target too.
    expected_N = F.cross_entropy(
        logits_NV, targets_N, reduction="none", label_smoothing=0.16 * 9 / 8
    ) - F.cross_entropy(logits_NV, targets_N, reduction="none")
    found_N = top_wrong_smoothing_term(logits_NV, targets_N, 0.16, 8)
    torch.testing.assert_close(found_N, expected_N, rtol=1e-12, atol=1e-12)


def test_amount_zero_equals_absent():
    torch.manual_seed(0)
    hidden_ND, weight_VD = torch.randn(4, 3), torch.randn(9, 3)
    targets_N = torch.randint(9, (4,))
    term = TopWrongSmoothing(amount=0).token_loss
    found, _ = linear_cross_entropy(hidden_ND, weight_VD, targets_N, token_loss=[term])
    assert found == linear_cross_entropy(hidden_ND, weight_VD, targets_N)[0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"amount": 1.0}, r"amount=...\) must be at least 0 and under 1, got 1.0"),
        ({"amount": -0.1}, r"amount=...\) must be at least 0"),
        ({"top": 0}, r"top=...\) must be 1 or more, got 0"),
    ],
)
def test_bad_values(parameters, message):
    with pytest.raises(UserError, match=message):
        TopWrongSmoothing(**parameters)
