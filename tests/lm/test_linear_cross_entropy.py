"""The logit-free loss is the plain one: value, gradients, under every way of calling it."""

# N scored tokens, V vocabulary, D width

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from heldout.lm import linear_cross_entropy as module
from heldout.lm.linear_cross_entropy import linear_cross_entropy

N, V, D = 37, 53, 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 3 tokens, so that chunks hold several and a part of one."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 4 * V)


def smoothing(logits_NV, targets_N):
    """Label smoothing of .1 as a term added to the cross-entropy."""
    log_probs_NV = logits_NV.log_softmax(-1)
    own_N = log_probs_NV.gather(1, targets_N[:, None]).squeeze(1)
    return 0.1 * (own_N - log_probs_NV.mean(-1))


def z_loss(logits_NV, _):
    return 1e-2 * logits_NV.logsumexp(-1) ** 2


def tensors(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    targets_N = torch.randint(V, (N,), generator=generator)
    return normal(N, D), normal(V, D), normal(V), targets_N


def plain(hidden_ND, weight_VD, targets_N, bias_V=None, token_loss=()):
    logits_NV = F.linear(hidden_ND, weight_VD, bias_V).to(
        torch.promote_types(hidden_ND.dtype, torch.float32)
    )
    total = F.cross_entropy(logits_NV, targets_N, reduction="sum")
    return total + sum(term(logits_NV, targets_N).sum() for term in token_loss)


@pytest.mark.parametrize("terms", [(), (smoothing,), (smoothing, z_loss)])
@pytest.mark.parametrize("chunk_tokens", [1, 10, 37, 1000, None])
@pytest.mark.parametrize("upstream", [1.0, -0.3])
def test_equals_plain_cross_entropy(terms, chunk_tokens, upstream):
    hidden, weight, bias, targets = tensors()
    expected = plain(hidden, weight, targets, bias, terms)
    expected_grads = torch.autograd.grad(expected * upstream, [hidden, weight, bias])
    total, nats_N = linear_cross_entropy(
        hidden, weight, targets, bias, token_loss=terms, chunk_tokens=chunk_tokens
    )
    assert not nats_N.requires_grad
    grads = torch.autograd.grad(total * upstream, [hidden, weight, bias])
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-6)
    each_N = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="none")
    torch.testing.assert_close(nats_N, each_N.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("terms", [(), pytest.param((smoothing, z_loss), marks=pytest.mark.slow)])
def test_gradcheck(terms):
    hidden, weight, bias, targets = tensors(torch.float64)

    def loss(hidden, weight, bias):
        return linear_cross_entropy(
            hidden, weight, targets, bias, token_loss=terms, chunk_tokens=10
        )[0]

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


@pytest.mark.parametrize("trained", ["hidden", "weight", "none"])
def test_frozen_parts_get_no_gradient(trained):
    hidden, weight, _, targets = tensors()
    hidden.requires_grad_(trained == "hidden")
    weight.requires_grad_(trained == "weight")
    total, _ = linear_cross_entropy(hidden, weight, targets, chunk_tokens=10)
    torch.testing.assert_close(total, plain(hidden, weight, targets), rtol=1e-6, atol=1e-6)
    assert total.requires_grad == (trained != "none")
    if trained != "none":
        leaf = hidden if trained == "hidden" else weight
        (expected,) = torch.autograd.grad(plain(hidden, weight, targets), leaf)
        total.backward()
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-6)
        assert (weight if trained == "hidden" else hidden).grad is None


def test_tied_weight_collects_both_gradients():
    _, weight, _, targets = tensors()
    inputs_N = targets.roll(1)
    for loss in (plain, lambda *args: linear_cross_entropy(*args, chunk_tokens=10)[0]):
        weight.grad = None
        loss(torch.tanh(weight[inputs_N]), weight, targets).backward()
        if loss is plain:
            expected = weight.grad
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-6)


def test_gradients_accumulate_over_calls_and_over_repeated_backwards():
    hidden, weight, _, targets = tensors()
    (expected,) = torch.autograd.grad(plain(hidden, weight, targets), weight)
    total, _ = linear_cross_entropy(hidden, weight, targets)
    total.backward(retain_graph=True)
    total.backward()
    (linear_cross_entropy(hidden, weight, targets)[0] * 0.5).backward()
    torch.testing.assert_close(weight.grad, 2.5 * expected, rtol=1e-5, atol=1e-5)


def test_terms_see_float32_logits_of_every_token_once_under_autocast():
    hidden, weight, bias, targets = tensors()
    seen = []

    def spy(logits_NV, targets_N):
        assert logits_NV.dtype == torch.float32
        seen.append((logits_NV.detach().clone(), targets_N))
        return logits_NV.sum(1)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear_cross_entropy(hidden, weight, targets, bias, token_loss=(spy,), chunk_tokens=10)
        expected = F.linear(hidden, weight, bias).float()
    assert torch.equal(torch.cat([part for _, part in seen]), targets)
    torch.testing.assert_close(
        torch.cat([part for part, _ in seen]), expected, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("terms", [(), (smoothing,)])
def test_autocast_is_as_close_to_plain_as_bfloat16_allows(terms):
    hidden, weight, _, targets = tensors()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain(hidden, weight, targets, None, terms)
        expected_grads = torch.autograd.grad(expected, [hidden, weight])
        total, _ = linear_cross_entropy(hidden, weight, targets, token_loss=terms, chunk_tokens=10)
    grads = torch.autograd.grad(total, [hidden, weight])
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, expected_grad, rtol=2e-2, atol=2e-2)


def test_bfloat16_tensors_keep_their_type():
    hidden, weight, _, targets = tensors(torch.bfloat16)
    total, nats_N = linear_cross_entropy(hidden, weight, targets)
    grads = torch.autograd.grad(total, [hidden, weight])
    assert (total.dtype, nats_N.dtype) == (torch.float32, torch.float32)
    assert {grad.dtype for grad in grads} == {torch.bfloat16}
    expected = torch.autograd.grad(plain(hidden, weight, targets), [hidden, weight])
    for grad, expected_grad in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=2e-2, atol=5e-2)


def test_no_grad_and_no_tokens():
    hidden, weight, _, targets = tensors()
    with torch.no_grad():
        total, _ = linear_cross_entropy(hidden, weight, targets, token_loss=(smoothing,))
    assert not total.requires_grad
    torch.testing.assert_close(total, plain(hidden, weight, targets, None, (smoothing,)).detach())
    total, nats_N = linear_cross_entropy(hidden[:0], weight, targets[:0])
    total.backward()
    assert (total.item(), len(nats_N), weight.grad.abs().sum().item()) == (0.0, 0, 0.0)


def test_large_logits_do_not_overflow():
    hidden, weight, _, targets = tensors()
    total, _ = linear_cross_entropy(hidden * 1e4, weight, targets)
    torch.testing.assert_close(total, plain(hidden * 1e4, weight, targets), rtol=1e-6, atol=1e-6)


class Products(TorchDispatchMode):
    """Keeps the shapes of what matrix products read and give."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        result = called(*args, **(kwargs or {}))
        if called.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            read = [each for each in args if isinstance(each, torch.Tensor)]
            self.shapes |= {tuple(each.shape) for each in (*read, result)}
        return result


def test_bfloat16_products_have_few_shapes_whatever_the_number_of_tokens():
    """A kernel is compiled for each: of 1 to 64 tokens, always the same."""
    hidden, weight, bias, targets = tensors(torch.bfloat16)
    shapes = []
    for num_tokens in (1, 20, 37):
        with Products() as products:
            loss, _ = linear_cross_entropy(hidden[:num_tokens], weight, targets[:num_tokens], bias)
            loss.backward()
        shapes.append(products.shapes)
    assert shapes[0] == shapes[1] == shapes[2]
    assert (64, V) in shapes[0]


def test_rounding_up_the_tokens_leaves_no_trace_of_an_infinite_bias():
    hidden, weight, bias, targets = tensors(torch.bfloat16)
    bias.data[5] = -torch.inf
    total, _ = linear_cross_entropy(hidden, weight, targets.clamp(6), bias)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(total, [hidden, weight]))


def test_the_weight_s_gradient_is_never_whole_in_bfloat16_when_it_is_summed_over_chunks():
    hidden, weight, _, targets = tensors(torch.bfloat16)
    with Products() as products:
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=10)
    assert (V, N) not in products.shapes
    assert max(rows for rows, width in products.shapes if width == D) == V  # the weight's own
    with Products() as products:
        linear_cross_entropy(hidden.detach(), weight, targets, chunk_tokens=10)
    assert (V, D) not in products.shapes


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_gradients_are_about_as_exact_as_those_of_float32_logits(autocast):
    hidden, weight, _, targets = tensors(torch.float32 if autocast else torch.bfloat16)
    exact = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    expected = torch.autograd.grad(plain(*exact, targets) / N, exact)

    def errors(loss):
        grads = torch.autograd.grad(loss / N, [hidden, weight])
        pairs = zip(grads, expected, strict=True)
        return [(grad.double() - true).norm() / true.norm() for grad, true in pairs]

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = errors(linear_cross_entropy(hidden, weight, targets, chunk_tokens=10)[0])
        theirs = errors(plain(hidden, weight, targets))
    for one, other in zip(ours, theirs, strict=True):
        assert one < 1.25 * other
