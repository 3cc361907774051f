"""Cross-entropy of a linear head, chunk by chunk, without ever holding all logits.

The gradients are computed in the forward, while a chunk's logits are at hand; recomputing them in
the backward would take 1.5 to 2 times as long. The technique is that of Liger Kernel (Hsu et al.
2024, arXiv 2410.10989), here in plain torch, on any device, with terms of the user's own. A chunk
of many tokens feeds the matrix products, and a block of few, which fits into the cache, all else:
so added terms cost little, even by autograd, and what is made of bfloat16 logits is float32.
"""

# N scored tokens, V vocabulary, D width; n tokens of a chunk, b of a block

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from heldout.core.regularizer import TokenLoss

CHUNK_BYTES = 64 * 2**20  # of logits; more does not make the matrix products faster
CHUNK_TOKENS = 256  # at least, or else reading the weight takes longer than multiplying with it
BLOCK_BYTES = 2 * 2**20  # of float32 logits on a CPU, whose cache holds a block and its gradient
DEVICE_BLOCK_BYTES = 32 * 2**20  # the same on a GPU, which also needs enough of them to be busy
ROUND_TOKENS = 64  # half-precision products of other numbers of tokens are slower on a CPU


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
    backward; that gradient is summed over chunks in float32. Can be differentiated once.
    """
    if chunk_tokens is None:
        chunk_tokens = default_chunk_tokens(weight_VD.shape[0], product_type(hidden_ND))
    needs_gradient = torch.is_grad_enabled()
    return _LinearCrossEntropy.apply(
        hidden_ND, weight_VD, bias_V, targets_N, tuple(token_loss), chunk_tokens, needs_gradient
    )


def default_chunk_tokens(num_classes: int, product: torch.dtype) -> int:
    """Tokens whose logits, of the type of the product, are held at a time."""
    tokens = max(CHUNK_TOKENS, CHUNK_BYTES // (product.itemsize * num_classes))
    return tokens // ROUND_TOKENS * ROUND_TOKENS


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


def block_rows(tensor: torch.Tensor) -> int:
    """Rows of a chunk, or of a gradient, to be worked on at a time, elementwise in float32."""
    size = BLOCK_BYTES if tensor.device.type == "cpu" else DEVICE_BLOCK_BYTES
    return max(1, size // (4 * tensor.shape[1]))


def rounded_up(hidden_ND: torch.Tensor, product: torch.dtype) -> torch.Tensor:
    """Hidden states in the type of the product; in half precision with zeros to a round number.

    On a CPU a half-precision kernel is compiled for each new number of rows.
    """
    hidden_ND = hidden_ND.to(product)
    if product.itemsize > 2:
        return hidden_ND
    return torch.nn.functional.pad(hidden_ND, (0, 0, 0, -len(hidden_ND) % ROUND_TOKENS))


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


def add_product(
    total_VD: torch.Tensor, chunk_nV: torch.Tensor, hidden_nD: torch.Tensor, *, first: bool
) -> None:
    """Adds a chunk's gradient of the weight to the total, whose numbers the first one replaces."""
    if total_VD.dtype != chunk_nV.dtype:  # by rows: mixed sums would convert all of them first
        for rows in slices(len(total_VD), block_rows(total_VD)):
            product_rD = chunk_nV[:, rows].T @ hidden_nD
            total_VD[rows] = product_rD if first else total_VD[rows].add_(product_rD)
    elif first:
        torch.mm(chunk_nV.T, hidden_nD, out=total_VD)
    else:
        total_VD.addmm_(chunk_nV.T, hidden_nD)


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
        ctx.types = (hidden_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        num_tokens, num_classes = len(targets_N), len(weight_VD)
        held = exact if num_tokens > chunk_tokens else product
        grad_hidden_ND: Any = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD: Any = torch.empty_like(weight_VD, dtype=held) if wants_weight else None
        grad_bias_V: Any = None
        if bias_V is not None and wants_bias:
            grad_bias_V = torch.zeros_like(bias_V, dtype=exact)
        if wants_weight and num_tokens == 0:
            grad_weight_VD.zero_()
        nats_N = torch.empty(num_tokens, dtype=exact, device=hidden_ND.device)
        total = torch.zeros((), dtype=exact, device=hidden_ND.device)

        # Converted once, not by autocast in every chunk.
        with torch.autocast(hidden_ND.device.type, enabled=False):
            hidden_ND, weight_VD = rounded_up(hidden_ND, product), weight_VD.to(product)
            bias_V = None if bias_V is None else bias_V.to(product)
            # The same memory for all chunks: new one costs a CPU more than what is written to it.
            buffer_nV = hidden_ND.new_empty(min(chunk_tokens, len(hidden_ND)), num_classes)
            size = min(block_rows(buffer_nV), len(buffer_nV))
            exact_bV, grad_bV = hidden_ND.new_empty(2, size, num_classes, dtype=exact)
            for part in slices(len(hidden_ND), chunk_tokens):
                hidden_nD, targets_n, nats_n = hidden_ND[part], targets_N[part], nats_N[part]
                chunk_nV = logits_into(buffer_nV, hidden_nD, weight_VD, bias_V)
                for block in slices(len(targets_n), size):
                    logits_bV, targets_b = chunk_nV[block], targets_n[block]
                    gradient_bV = grad_bV[: len(targets_b)]
                    if product != exact:
                        logits_bV = exact_bV[: len(targets_b)].copy_(logits_bV)
                    nats_n[block], added = _loss(
                        logits_bV, targets_b, terms, any(wants), gradient_bV
                    )
                    total += added
                    if wants_bias:
                        grad_bias_V += gradient_bV.sum(0)
                    chunk_nV[block] = gradient_bV
                chunk_nV[len(targets_n) :] = 0.0
                if wants_hidden:
                    grad_hidden_ND[part] = (chunk_nV @ weight_VD)[: len(targets_n)]
                if wants_weight:
                    add_product(grad_weight_VD, chunk_nV, hidden_nD, first=part.start == 0)

        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.mark_non_differentiable(nats_N)
        return total + nats_N.sum(), nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        return (*scaled(ctx, grad_total), None, None, None, None)


def scaled(ctx: Any, factor: torch.Tensor) -> list[torch.Tensor | None]:
    """The saved gradients times ``factor``; copies, because backward may be called again."""
    found: list[torch.Tensor | None] = []
    for saved, dtype in zip(ctx.saved_tensors, ctx.types, strict=True):
        if saved is None or saved.dtype == dtype or saved.dim() == 1:
            found.append(None if saved is None else (saved * factor).to(dtype))
            continue
        result = torch.empty_like(saved, dtype=dtype)
        for rows in slices(len(saved), block_rows(saved)):  # no float32 copy of a whole weight
            result[rows] = saved[rows].to(torch.promote_types(saved.dtype, dtype)) * factor
        found.append(result)
    return found


def _loss(
    logits_bV: torch.Tensor,
    targets_b: torch.Tensor,
    terms: Sequence[TokenLoss],
    wants_gradient: bool,
    grad_bV: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each token, the sum of all terms; the gradient of both into ``grad_bV``."""
    index_b1 = targets_b[:, None]
    torch.log_softmax(logits_bV, 1, out=grad_bV)
    nats_b = -grad_bV.gather(1, index_b1).squeeze(1)
    grad_bV.exp_()
    grad_bV.scatter_add_(1, index_b1, grad_bV.new_full(index_b1.shape, -1.0))
    added = logits_bV.new_zeros(())
    if terms:
        with torch.set_grad_enabled(wants_gradient):
            leaf_bV = logits_bV.detach().requires_grad_(wants_gradient)
            for term in terms:
                added = added + term(leaf_bV, targets_b).sum()
            if wants_gradient:
                grad_bV += torch.autograd.grad(added, leaf_bV)[0]
    return nats_b, added.detach()
