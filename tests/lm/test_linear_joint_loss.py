"""Several passes at once against plain autograd in float64."""

import pytest
import torch
import torch.nn.functional as F

from heldout.lm.linear_joint_loss import linear_joint_loss


def mixed(logits, targets_N):
    """Two cross-entropies and a divergence, each of its own weight."""
    first, second = (values.log_softmax(-1) for values in logits)
    divergence_N = (first.exp() * (first - second)).sum(-1)
    losses = [F.nll_loss(values, targets_N, reduction="none") for values in (first, second)]
    return 0.3 * losses[0] + 0.7 * losses[1] + 2.0 * divergence_N


@pytest.mark.parametrize("chunk_tokens", [3, 100])
@pytest.mark.parametrize("own_weight", [True, False])
def test_equals_the_plain_one_with_all_gradients(chunk_tokens, own_weight):
    torch.manual_seed(0)
    hidden = [torch.randn(11, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    first = torch.randn(17, 6, dtype=torch.float64, requires_grad=True)
    second = torch.randn_like(first).requires_grad_() if own_weight else first
    bias = torch.randn(17, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(17, (11,))
    plain = mixed([hidden[0] @ first.T + bias, hidden[1] @ second.T], targets).sum()
    chunked = linear_joint_loss(
        [(hidden[0], first, bias), (hidden[1], second, None)],
        targets,
        mixed,
        chunk_tokens=chunk_tokens,
    )
    assert torch.allclose(plain, chunked, atol=1e-12)
    inputs = [*hidden, first, bias] + ([second] if own_weight else [])
    expected = torch.autograd.grad(3 * plain, inputs)
    found = torch.autograd.grad(3 * chunked, inputs)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_a_pass_without_gradient_is_a_constant():
    torch.manual_seed(0)
    hidden, fixed = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    weight, targets = torch.randn(9, 4), torch.randint(9, (5,))
    loss = linear_joint_loss([(hidden, weight, None), (fixed, weight, None)], targets, mixed)
    loss.backward()
    plain = hidden.detach().clone().requires_grad_()
    mixed([plain @ weight.T, fixed @ weight.T], targets).sum().backward()
    assert torch.allclose(hidden.grad, plain.grad, atol=1e-5)
    with torch.no_grad():
        again = linear_joint_loss([(hidden, weight, None), (fixed, weight, None)], targets, mixed)
    assert torch.allclose(loss, again)


def test_under_autocast_the_product_is_taken_in_half_precision():
    torch.manual_seed(0)
    hidden = [torch.randn(40, 16, requires_grad=True) for _ in range(2)]
    weight, targets = torch.randn(30, 16, requires_grad=True), torch.randint(30, (40,))
    heads = [(values, weight, None) for values in hidden]
    exact = linear_joint_loss(heads, targets, mixed)
    with torch.autocast("cpu", torch.bfloat16):
        half = linear_joint_loss(heads, targets, mixed)
    half.backward()
    assert weight.grad.dtype == torch.float32
    assert 0 < (half - exact).abs() < 0.02 * exact
