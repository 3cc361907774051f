"""Cross-entropy of a linear head, chunk by chunk, without ever holding all logits.

The gradients are computed in the forward, while a chunk's logits are at hand; recomputing them in
the backward would take 1.5 to 2 times as long. The technique is that of Liger Kernel (Hsu et al.
2024, arXiv 2410.10989), here in plain torch, on any device, with terms of the user's own.
"""

# N scored tokens, V vocabulary, D width

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from heldout.core.regularizer import TokenLoss

CHUNK_BYTES = 64 * 2**20  # of float32 logits


def linear_cross_entropy(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    token_loss: Sequence[TokenLoss] = (),
    chunk_tokens: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss of all tokens, in nats, and the plain cross-entropy of each, detached.

    Equals ``F.cross_entropy(hidden @ weight.T + bias, targets, reduction="sum")`` in float32, plus
    the sum of each term of ``token_loss``: callables ``(logits_NV, targets_N) -> nats_N`` that see
    one chunk of float32 logits. A term's own parameters get no gradient. Under autocast the
    product with the weight is taken in autocast's type, as a linear layer would.

    Costs the same three matrix products as the plain way; holds one chunk of logits, by default
    64 MB (a few times that with terms), and the gradient of the weight if it is trained. Can be
    differentiated once.
    """
    if chunk_tokens is None:
        chunk_tokens = max(1, CHUNK_BYTES // (4 * weight_VD.shape[0]))
    needs_gradient = torch.is_grad_enabled()
    return _LinearCrossEntropy.apply(
        hidden_ND, weight_VD, bias_V, targets_N, tuple(token_loss), chunk_tokens, needs_gradient
    )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias_V, targets_N, terms, chunk_tokens, needs_gradient):
        wants = [needs_gradient and needed for needed in ctx.needs_input_grad[:3]]
        wants_hidden, wants_weight, wants_bias = wants
        exact = torch.promote_types(hidden_ND.dtype, torch.float32)
        grad_hidden_ND: Any = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD: Any = torch.zeros_like(weight_VD, dtype=exact) if wants_weight else None
        grad_bias_V: Any = torch.zeros_like(bias_V, dtype=exact) if wants_bias else None
        nats_N = torch.empty(len(targets_N), dtype=exact, device=hidden_ND.device)
        total = torch.zeros((), dtype=exact, device=hidden_ND.device)

        for start in range(0, len(targets_N), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            hidden_nD, targets_n = hidden_ND[part], targets_N[part]
            product_nV = F.linear(hidden_nD, weight_VD, bias_V)
            product_type = product_nV.dtype
            logits_nV = product_nV.to(exact)
            del product_nV
            term_grad_nV = None
            if terms:
                term_sum, term_grad_nV = _terms(terms, logits_nV, targets_n, any(wants))
                total += term_sum
            nats_N[part], grad_nV = _cross_entropy_(logits_nV, targets_n, any(wants))
            if not any(wants):
                continue
            if term_grad_nV is not None:
                grad_nV += term_grad_nV
            if wants_bias:
                grad_bias_V += grad_nV.sum(0)
            grad_nV = grad_nV.to(product_type)
            with torch.autocast(hidden_ND.device.type, enabled=False):
                if wants_hidden:
                    grad_hidden_ND[part] = grad_nV @ weight_VD.to(product_type)
                if wants_weight and product_type == exact:
                    grad_weight_VD.addmm_(grad_nV.T, hidden_nD.to(exact))
                elif wants_weight:
                    grad_weight_VD += grad_nV.T @ hidden_nD.to(product_type)

        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.types = (hidden_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        ctx.mark_non_differentiable(nats_N)
        return total + nats_N.sum(), nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total, _):
        grads = [
            None if saved is None else (saved * grad_total).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return (*grads, None, None, None, None)


def _cross_entropy_(logits_nV, targets_n, wants_gradient: bool):
    """Nats per token and their gradient, which takes the place of the logits."""
    index_n1 = targets_n[:, None]
    logits_nV -= logits_nV.amax(dim=1, keepdim=True)
    target_logits_n = logits_nV.gather(1, index_n1).squeeze(1)
    logits_nV.exp_()
    sums_n = logits_nV.sum(dim=1)
    nats_n = sums_n.log() - target_logits_n
    if not wants_gradient:
        return nats_n, None
    logits_nV /= sums_n[:, None]
    logits_nV.scatter_add_(1, index_n1, logits_nV.new_full(index_n1.shape, -1.0))
    return nats_n, logits_nV


def _terms(terms, logits_nV, targets_n, wants_gradient: bool):
    """Sum of the added terms over a chunk, and its gradient to the logits, which stay as is."""
    with (
        torch.set_grad_enabled(wants_gradient),
        torch.autocast(logits_nV.device.type, enabled=False),
    ):
        leaf_nV = logits_nV.detach().requires_grad_(wants_gradient)
        total = sum(term(leaf_nV, targets_n).sum() for term in terms)
        if not wants_gradient:
            return total, None
        (grad_nV,) = torch.autograd.grad(total, leaf_nV)
    return total.detach(), grad_nV
