"""A loss of several passes through linear heads together, without holding their logits.

As in ``linear_cross_entropy``, chunk by chunk, with the gradients computed in the forward. Each
pass takes one matrix product for its logits and one for each gradient it needs, however many
terms the loss has: cross-entropies and divergences of the same pass share them.
"""

# N scored tokens, V vocabulary, D width

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from heldout.lm.linear_cross_entropy import (
    add_product,
    block_rows,
    default_chunk_tokens,
    logits_into,
    product_type,
    scaled,
    slices,
)

# (logits_nV of each pass, targets_n) -> nats_n
JointLoss = Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor]
# hidden_ND, weight_VD, bias_V
Head = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def linear_joint_loss(
    heads: Sequence[Head], targets_N: torch.Tensor, loss: JointLoss, *, chunk_tokens: int = 0
) -> torch.Tensor:
    """The sum over tokens of ``loss`` of the passes' logits, in nats.

    ``loss`` sees float32 logits of some tokens at a time and is differentiated by autograd.
    Gradients flow to every hidden state, weight and bias that requires one; a pass none of whose
    tensors does is a constant. Under autocast the products are taken in autocast's type. Holds one
    chunk of logits for each pass, by default 64 MB or 256 tokens. Can be differentiated once.
    """
    chunk = chunk_tokens or default_chunk_tokens(heads[0][1].shape[0], product_type(heads[0][0]))
    flat = [tensor for head in heads for tensor in head]
    needs_gradient = torch.is_grad_enabled()
    return _LinearJointLoss.apply(targets_N, loss, chunk, needs_gradient, *flat)


class _LinearJointLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        targets_N: torch.Tensor,
        loss: JointLoss,
        chunk_tokens: int,
        needs_gradient: bool,
        *flat: Any,
    ) -> torch.Tensor:
        heads = [flat[i : i + 3] for i in range(0, len(flat), 3)]
        wanted = [needs_gradient and needed for needed in ctx.needs_input_grad[4:]]
        wants = [wanted[i : i + 3] for i in range(0, len(flat), 3)]
        exact = torch.promote_types(flat[0].dtype, torch.float32)
        product = product_type(flat[0])
        # A weight that several heads share has one gradient, returned for the first of them.
        sums: dict[int, Any] = {}
        grads: list[Any] = []
        for tensor, needed in zip(flat, wanted, strict=True):
            is_new = needed and id(tensor) not in sums
            if is_new:
                sums[id(tensor)] = torch.zeros_like(tensor, dtype=exact)
            grads.append(sums[id(tensor)] if is_new else None)
        total = torch.zeros((), dtype=exact, device=targets_N.device)
        ctx.types = [None if tensor is None else tensor.dtype for tensor in flat]

        with torch.autocast(targets_N.device.type, enabled=False):
            converted = {id(t): t.to(product) for t in flat if t is not None}
            cast: Any = [[None if t is None else converted[id(t)] for t in head] for head in heads]
            size = min(chunk_tokens, len(targets_N))
            buffers = [head[0].new_empty(size, len(head[1])) for head in cast]
            for part in slices(len(targets_N), chunk_tokens):
                chunks = [
                    logits_into(buffer, hidden_ND[part], weight_VD, bias_V)
                    for buffer, (hidden_ND, weight_VD, bias_V) in zip(buffers, cast, strict=True)
                ]
                for block in slices(len(chunks[0]), block_rows(chunks[0])):
                    total += _differentiate(
                        [chunk[block] for chunk in chunks],
                        targets_N[part][block],
                        loss,
                        [any(of_pass) for of_pass in wants],
                        exact,
                    )
                for number, chunk_nV in enumerate(chunks):
                    hidden_ND, weight_VD, _ = cast[number]
                    to_hidden, to_weight, to_bias = (
                        sums.get(id(tensor)) for tensor in heads[number]
                    )
                    if to_hidden is not None:
                        to_hidden[part] = chunk_nV @ weight_VD
                    if to_weight is not None:
                        add_product(to_weight, chunk_nV, hidden_ND[part], first=False)
                    if to_bias is not None:
                        to_bias += chunk_nV.sum(0)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, None, None, *scaled(ctx, grad_total))


def _differentiate(
    blocks: Sequence[torch.Tensor],
    targets_n: torch.Tensor,
    loss: JointLoss,
    wants: Sequence[bool],
    exact: torch.dtype,
) -> torch.Tensor:
    """The sum of the loss; the gradients take the place of the logits of passes that want one."""
    with torch.set_grad_enabled(any(wants)):
        leaves = [
            block.to(exact).detach().requires_grad_(wanted)
            for block, wanted in zip(blocks, wants, strict=True)
        ]
        total = loss(leaves, targets_n).sum()
        asked = [leaf for leaf, wanted in zip(leaves, wants, strict=True) if wanted]
        found = iter(torch.autograd.grad(total, asked) if asked else ())
    for block, wanted in zip(blocks, wants, strict=True):
        if wanted:
            block.copy_(next(found))
    return total.detach()
