"""Cross-entropy of a linear head, chunk by chunk, without ever holding all logits.

The gradients are computed in the forward, while a chunk's logits are at hand; recomputing them in
the backward would take 1.5 to 2 times as long. The technique is that of Liger Kernel (Hsu et al.
2024, arXiv 2410.10989), here in plain torch, on any device, with terms of the user's own. On a CPU
a chunk of many tokens feeds the matrix products, and a block of few, which fits into the cache,
all else: so added terms cost little, even by autograd.
"""

# N scored tokens, V vocabulary, D width

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from heldout.core.regularizer import TokenLoss

CHUNK_BYTES = 64 * 2**20  # of logits; more does not make the matrix products faster
CHUNK_TOKENS = 256  # at least, or else reading the weight takes longer than multiplying with it
BLOCK_BYTES = 2 * 2**20  # of logits on a CPU, whose cache then holds a block and what is made of it


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
    the float32 logits of some tokens at a time. A term's own parameters get no gradient. Under
    autocast the product with the weight is taken in autocast's type, as a linear layer would.

    Costs the same three matrix products as the plain way; holds one chunk of logits, by default
    64 MB or 256 tokens, and the gradient of the weight if it is trained, twice during the
    backward. Can be differentiated once.
    """
    if chunk_tokens is None:
        chunk_tokens = default_chunk_tokens(weight_VD.shape[0])
    needs_gradient = torch.is_grad_enabled()
    return _LinearCrossEntropy.apply(
        hidden_ND, weight_VD, bias_V, targets_N, tuple(token_loss), chunk_tokens, needs_gradient
    )


def default_chunk_tokens(num_classes: int) -> int:
    """Tokens whose logits are held at a time."""
    return max(CHUNK_TOKENS, CHUNK_BYTES // (4 * num_classes))


def product_type(hidden_ND: torch.Tensor) -> torch.dtype:
    """The type in which a linear layer would multiply: autocast's, where that is on."""
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device) and hidden_ND.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden_ND.dtype


def slices(number: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(number)``."""
    for start in range(0, number, size):
        yield slice(start, min(start + size, number))


def block_tokens(chunk_nV: torch.Tensor) -> int:
    """Tokens of a chunk to be worked on at a time, elementwise."""
    if chunk_nV.device.type != "cpu":
        return len(chunk_nV)
    return max(1, BLOCK_BYTES // (4 * chunk_nV.shape[1]))


def logits_into(
    buffer_nV: torch.Tensor,
    hidden_nD: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
) -> torch.Tensor:
    """Logits of a chunk, written to the first rows of ``buffer_nV``."""
    chunk_nV = buffer_nV[: len(hidden_nD)]
    if bias_V is None:
        return torch.mm(hidden_nD, weight_VD.T, out=chunk_nV)
    return torch.addmm(bias_V, hidden_nD, weight_VD.T, out=chunk_nV)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
        terms: Sequence[TokenLoss],
        chunk_tokens: int,
        needs_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wants = [needs_gradient and needed for needed in ctx.needs_input_grad[:3]]
        wants_hidden, wants_weight, wants_bias = wants
        exact = torch.promote_types(hidden_ND.dtype, torch.float32)
        product = product_type(hidden_ND)
        grad_hidden_ND: Any = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD: Any = torch.zeros_like(weight_VD, dtype=exact) if wants_weight else None
        grad_bias_V: Any = None
        if bias_V is not None and wants_bias:
            grad_bias_V = torch.zeros_like(bias_V, dtype=exact)
        nats_N = torch.empty(len(targets_N), dtype=exact, device=hidden_ND.device)
        total = torch.zeros((), dtype=exact, device=hidden_ND.device)
        ctx.types = (hidden_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)

        num_tokens, num_classes = len(targets_N), len(weight_VD)
        # Converted once, not by autocast in every chunk.
        with torch.autocast(hidden_ND.device.type, enabled=False):
            hidden_ND, weight_VD = hidden_ND.to(product), weight_VD.to(product)
            bias_V = None if bias_V is None else bias_V.to(product)
            # One buffer for all chunks: new memory costs a CPU more than what is written to it.
            buffer_nV = hidden_ND.new_empty(min(chunk_tokens, num_tokens), num_classes)
            for part in slices(num_tokens, chunk_tokens):
                hidden_nD, targets_n, nats_n = hidden_ND[part], targets_N[part], nats_N[part]
                chunk_nV = logits_into(buffer_nV, hidden_nD, weight_VD, bias_V)
                for block in slices(len(chunk_nV), block_tokens(chunk_nV)):
                    logits_nV = chunk_nV[block]
                    nats_n[block], added, grad_nV = _loss(
                        logits_nV.to(exact), targets_n[block], terms, any(wants)
                    )
                    total += added
                    if grad_nV is not None:
                        if wants_bias:
                            grad_bias_V += grad_nV.sum(0)
                        logits_nV.copy_(grad_nV)
                if wants_hidden:
                    grad_hidden_ND[part] = chunk_nV @ weight_VD
                if wants_weight and product == exact:
                    grad_weight_VD.addmm_(chunk_nV.T, hidden_nD)
                elif wants_weight:
                    grad_weight_VD += chunk_nV.T @ hidden_nD

        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.mark_non_differentiable(nats_N)
        return total + nats_N.sum(), nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        return (*scaled(ctx, grad_total), None, None, None, None)


def scaled(ctx: Any, factor: torch.Tensor) -> list[torch.Tensor | None]:
    """The saved gradients times ``factor``; copies, because backward may be called again."""
    return [
        None if saved is None else (saved * factor).to(dtype)
        for saved, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
    ]


def _loss(
    logits_nV: torch.Tensor,
    targets_n: torch.Tensor,
    terms: Sequence[TokenLoss],
    wants_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Cross-entropy of each token, the sum of all terms, and the gradient of both together."""
    index_n1 = targets_n[:, None]
    log_probs_nV = logits_nV.log_softmax(dim=1)
    nats_n = -log_probs_nV.gather(1, index_n1).squeeze(1)
    grad_nV = None
    if wants_gradient:
        grad_nV = log_probs_nV.exp_()
        grad_nV.scatter_add_(1, index_n1, grad_nV.new_full(index_n1.shape, -1.0))
    added = logits_nV.new_zeros(())
    if terms:
        with torch.set_grad_enabled(wants_gradient):
            leaf_nV = logits_nV.detach().requires_grad_(wants_gradient)
            for term in terms:
                added = added + term(leaf_nV, targets_n).sum()
            if grad_nV is not None:
                grad_nV += torch.autograd.grad(added, leaf_nV)[0]
    return nats_n, added.detach(), grad_nV
