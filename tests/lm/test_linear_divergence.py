"""The chunked divergence against plain autograd in float64."""

import pytest
import torch

from heldout.lm import linear_cross_entropy
from heldout.lm.linear_divergence import divergence_of_logits, linear_divergence


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 3 tokens of 17 classes."""
    monkeypatch.setattr(linear_cross_entropy, "BLOCK_BYTES", 3 * 4 * 17)


@pytest.mark.parametrize("kind", ["forward", "symmetric"])
@pytest.mark.parametrize("one_weight", [True, False])
def test_equals_the_plain_one_with_all_gradients(kind, one_weight):
    torch.manual_seed(0)
    p, q = (torch.randn(11, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    first = torch.randn(17, 6, dtype=torch.float64, requires_grad=True)
    second = first if one_weight else torch.randn_like(first).requires_grad_()
    bias = torch.randn(17, dtype=torch.float64, requires_grad=True)
    inputs = [p, q, first, bias] + ([] if one_weight else [second])
    plain = divergence_of_logits(p @ first.T + bias, q @ second.T, kind).sum()
    chunked = linear_divergence(p, first, q, second, kind, bias, chunk_tokens=4)
    assert torch.allclose(plain, chunked, atol=1e-12)
    expected = torch.autograd.grad(3 * plain, inputs)
    found = torch.autograd.grad(3 * chunked, inputs)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_nothing_between_equals_and_torch_agrees():
    torch.manual_seed(0)
    p, q, weight = torch.randn(5, 4), torch.randn(5, 4), torch.randn(9, 4)
    assert linear_divergence(p, weight, p, weight).abs() < 1e-6
    expected = torch.nn.functional.kl_div(
        (q @ weight.T).log_softmax(-1), (p @ weight.T).softmax(-1), reduction="sum"
    )
    assert torch.allclose(linear_divergence(p, weight, q, weight, "forward"), expected, atol=1e-5)


def test_detached_sides_get_no_gradient():
    p = torch.randn(5, 4, requires_grad=True)
    q, weight = torch.randn(5, 4), torch.randn(9, 4)
    linear_divergence(p, weight, q, weight).backward()
    assert p.grad.abs().sum() > 0


def test_autocast_is_as_close_to_plain_as_bfloat16_allows():
    torch.manual_seed(0)
    p, q, weight = (torch.randn(n, 8, requires_grad=True) for n in (11, 11, 17))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = divergence_of_logits(
            torch.nn.functional.linear(p, weight).float(),
            torch.nn.functional.linear(q, weight).float(),
            "symmetric",
        ).sum()
        chunked = linear_divergence(p, weight, q, weight, chunk_tokens=4)
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(plain, [p, q, weight])
    found = torch.autograd.grad(chunked, [p, q, weight])
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).norm() < 2e-2 * one.norm()


def test_no_tokens():
    weight = torch.randn(9, 4, requires_grad=True)
    empty = torch.zeros(0, 4)
    linear_divergence(empty, weight, empty, weight).backward()
    assert weight.grad.abs().sum() == 0
