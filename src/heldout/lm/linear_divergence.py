"""Kullback-Leibler divergence between two passes through a linear head, without their logits.

As in ``linear_cross_entropy``, chunk by chunk, with the gradients computed in the forward.
"""

# N scored tokens, V vocabulary, D width

from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable

from heldout.lm.linear_cross_entropy import (
    block_tokens,
    default_chunk_tokens,
    logits_into,
    product_type,
    slices,
)

Kind = Literal["forward", "symmetric"]


def linear_divergence(
    p_ND: torch.Tensor,
    p_weight_VD: torch.Tensor,
    q_ND: torch.Tensor,
    q_weight_VD: torch.Tensor,
    kind: Kind = "symmetric",
    p_bias_V: torch.Tensor | None = None,
    q_bias_V: torch.Tensor | None = None,
    *,
    chunk_tokens: int | None = None,
) -> torch.Tensor:
    """KL(p || q), or with ``symmetric`` KL(p || q) + KL(q || p), summed over N tokens, in nats.

    p and q are the softmax of ``hidden @ weight.T + bias``. Gradients flow to every hidden state,
    weight and bias that requires one; one-sided use means detaching the other side. Costs two
    products with the head, and one more for each gradient; holds two chunks of logits, each by
    default 64 MB or 256 tokens. Under autocast the products are taken in autocast's type. Can be
    differentiated once.
    """
    if chunk_tokens is None:
        chunk_tokens = default_chunk_tokens(p_weight_VD.shape[0])
    needs_gradient = torch.is_grad_enabled()
    return _LinearDivergence.apply(
        p_ND, p_weight_VD, p_bias_V, q_ND, q_weight_VD, q_bias_V, kind, chunk_tokens, needs_gradient
    )


def divergence_of_logits(p_NV: torch.Tensor, q_NV: torch.Tensor, kind: Kind) -> torch.Tensor:
    """The same from logits, per token (N,), by plain autograd."""
    p_log_NV, q_log_NV = p_NV.log_softmax(-1), q_NV.log_softmax(-1)
    nats_N = (p_log_NV.exp() * (p_log_NV - q_log_NV)).sum(-1)
    if kind == "symmetric":
        nats_N = nats_N + (q_log_NV.exp() * (q_log_NV - p_log_NV)).sum(-1)
    return nats_N


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p_ND, p_weight, p_bias, q_ND, q_weight, q_bias, kind, chunk, needs_gradient):
        inputs = (p_ND, p_weight, p_bias, q_ND, q_weight, q_bias)
        wants = [needs_gradient and needed for needed in ctx.needs_input_grad[:6]]
        exact = torch.promote_types(p_ND.dtype, torch.float32)
        product = product_type(p_ND)
        ctx.types = [None if value is None else value.dtype for value in inputs]
        grads: list[Any] = [
            torch.zeros_like(value, dtype=exact) if wanted else None
            for value, wanted in zip(inputs, wants, strict=True)
        ]
        total = torch.zeros((), dtype=exact, device=p_ND.device)
        num_tokens, num_classes = len(p_ND), len(p_weight)
        wants_logits = (any(wants[:3]), any(wants[3:]))
        with torch.autocast(p_ND.device.type, enabled=False):
            cast: list[Any] = [None if value is None else value.to(product) for value in inputs]
            sides = (cast[:3], cast[3:])
            buffers = [
                p_ND.new_empty(min(chunk, num_tokens), num_classes, dtype=product) for _ in range(2)
            ]
            for part in slices(num_tokens, chunk):
                chunks = [
                    logits_into(buffer_nV, hidden_ND[part], weight, bias)
                    for buffer_nV, (hidden_ND, weight, bias) in zip(buffers, sides, strict=True)
                ]
                for block in slices(len(chunks[0]), block_tokens(chunks[0])):
                    p_nV, q_nV = (chunk_nV[block].to(exact) for chunk_nV in chunks)
                    nats, logit_grads = _divergence(p_nV, q_nV, kind, wants_logits)
                    total += nats
                    for side, grad_nV in enumerate(logit_grads):
                        if grad_nV is None:
                            continue
                        if wants[3 * side + 2]:
                            grads[3 * side + 2] += grad_nV.sum(0)
                        chunks[side][block] = grad_nV
                for side, grad_nV in enumerate(chunks):
                    hidden_ND, weight, _ = sides[side]
                    if wants[3 * side]:
                        grads[3 * side][part] = grad_nV @ weight
                    if wants[3 * side + 1]:
                        grads[3 * side + 1] += grad_nV.T @ hidden_ND[part]
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total):
        grads = [
            None if saved is None else (saved * grad_total).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return (*grads, None, None, None)


def _divergence(p_logits_nV, q_logits_nV, kind: Kind, wants: tuple[bool, bool]):
    """The sum over tokens and its gradients to both logits, where wanted."""
    p_log_nV, q_log_nV = p_logits_nV.log_softmax(-1), q_logits_nV.log_softmax(-1)
    p_nV, q_nV = p_log_nV.exp(), q_log_nV.exp()
    ratio_nV = p_log_nV.sub_(q_log_nV)
    forward_n1 = (p_nV * ratio_nV).sum(-1, keepdim=True)
    backward_n1 = -(q_nV * ratio_nV).sum(-1, keepdim=True)
    symmetric = kind == "symmetric"
    total = (forward_n1 + backward_n1 if symmetric else forward_n1).sum()
    p_grad_nV = q_grad_nV = None
    if wants[0]:
        p_grad_nV = p_nV * (ratio_nV - forward_n1)
        if symmetric:
            p_grad_nV += p_nV - q_nV
    if wants[1]:
        q_grad_nV = q_nV - p_nV
        if symmetric:
            q_grad_nV -= q_nV * (ratio_nV + backward_n1)
    return total, (p_grad_nV, q_grad_nV)
