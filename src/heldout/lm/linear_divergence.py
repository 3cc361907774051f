"""Kullback-Leibler divergence between two passes through a linear head, without their logits.

As in ``linear_cross_entropy``, chunk by chunk, with the gradients computed in the forward.
"""

# N scored tokens, V vocabulary, D width

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from heldout.lm.linear_cross_entropy import CHUNK_BYTES

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
    products with the head, and one more for each gradient; holds two chunks of logits of 64 MB.
    Can be differentiated once.
    """
    if chunk_tokens is None:
        chunk_tokens = max(1, CHUNK_BYTES // (4 * p_weight_VD.shape[0]))
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
        grads: list[Any] = [
            torch.zeros_like(value, dtype=exact) if wanted else None
            for value, wanted in zip(inputs, wants, strict=True)
        ]
        total = torch.zeros((), dtype=exact, device=p_ND.device)
        for start in range(0, len(p_ND), chunk):
            part = slice(start, start + chunk)
            p_product_nV = F.linear(p_ND[part], p_weight, p_bias)
            q_product_nV = F.linear(q_ND[part], q_weight, q_bias)
            product_type = p_product_nV.dtype
            p_log_nV = p_product_nV.to(exact).log_softmax(-1)
            q_log_nV = q_product_nV.to(exact).log_softmax(-1)
            del p_product_nV, q_product_nV
            p_nV, q_nV = p_log_nV.exp(), q_log_nV.exp()
            ratio_nV = p_log_nV.sub_(q_log_nV)
            del q_log_nV
            forward_n1 = (p_nV * ratio_nV).sum(-1, keepdim=True)
            total += forward_n1.sum()
            backward_n1 = None
            if kind == "symmetric":
                backward_n1 = -(q_nV * ratio_nV).sum(-1, keepdim=True)
                total += backward_n1.sum()
            for side, hidden_ND, weight in ((0, p_ND, p_weight), (3, q_ND, q_weight)):
                if not any(wants[side : side + 3]):
                    continue
                if side == 0:
                    logit_grad_nV = p_nV * (ratio_nV - forward_n1)
                    if backward_n1 is not None:
                        logit_grad_nV += p_nV - q_nV
                else:
                    logit_grad_nV = q_nV - p_nV
                    if backward_n1 is not None:
                        logit_grad_nV -= q_nV * (ratio_nV + backward_n1)
                if wants[side + 2]:
                    grads[side + 2] += logit_grad_nV.sum(0)
                logit_grad_nV = logit_grad_nV.to(product_type)
                with torch.autocast(p_ND.device.type, enabled=False):
                    if wants[side]:
                        grads[side][part] = logit_grad_nV @ weight.to(product_type)
                    if wants[side + 1]:
                        grads[side + 1] += logit_grad_nV.T @ hidden_ND[part].to(product_type)
        ctx.save_for_backward(*grads)
        ctx.types = [None if value is None else value.dtype for value in inputs]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total):
        grads = [
            None if saved is None else (saved * grad_total).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return (*grads, None, None, None)
