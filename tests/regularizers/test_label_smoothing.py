import pytest
import torch
import torch.nn.functional as F

from heldout.core.errors import UserError
from heldout.regularizers.label_smoothing import LabelSmoothing, label_smoothing_term


def slow_twin(logits, target, amount):
    """Straight from the paper: cross-entropy against the smoothed distribution."""
    num_classes = len(logits)
    probabilities = torch.softmax(logits, 0)
    smoothed = [
        (1 - amount) * float(k == target) + amount / num_classes for k in range(num_classes)
    ]
    return -sum(smoothed[k] * torch.log(probabilities[k]) for k in range(num_classes))


def test_the_term_completes_the_cross_entropy_of_the_paper():
    torch.manual_seed(0)
    logits_NV = 4 * torch.randn(7, 11, dtype=torch.float64)
    targets_N = torch.randint(11, (7,))
    ours_N = F.cross_entropy(logits_NV, targets_N, reduction="none") + label_smoothing_term(
        logits_NV, targets_N, 0.15
    )
    for n in range(7):
        expected = slow_twin(logits_NV[n], int(targets_N[n]), 0.15)
        torch.testing.assert_close(ours_N[n], expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_torch():
    torch.manual_seed(1)
    logits_NV = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    targets_N = torch.randint(9, (5,))
    whole = F.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=0.2)
    (expected,) = torch.autograd.grad(whole, logits_NV)
    ours = (
        F.cross_entropy(logits_NV, targets_N, reduction="sum")
        + label_smoothing_term(logits_NV, targets_N, 0.2).sum()
    )
    (gradient,) = torch.autograd.grad(ours, logits_NV)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("amount", [-0.1, 1.0])
def test_bad_values(amount):
    with pytest.raises(UserError, match=r"LabelSmoothing\(amount=...\) must be at least 0"):
        LabelSmoothing(amount=amount)
