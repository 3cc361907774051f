"""Logits of scored tokens, a few at a time, for statistics that need the whole vocabulary."""

# N scored tokens, n of them in a block, V vocabulary, K statistics

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from heldout.lm.flat_trial import lays_flat
from heldout.lm.head import call_with_head, scored
from heldout.lm.linear_cross_entropy import (
    block_rows,
    default_chunk_tokens,
    logits_into,
    product_type,
    slices,
)
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.scored_loss import scored_logits
from heldout.lm.tokenize import IGNORED

Statistics = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@torch.no_grad()
def scored_statistics(
    model: nn.Module, inputs: Mapping[str, Any], statistics: Statistics
) -> tuple[torch.Tensor, torch.Tensor]:
    """``statistics(logits_nV, targets_n) -> (n, K)`` of all scored tokens, (N, K), and their rows.

    ``inputs`` are the model's arguments with ``labels`` (B, T), unshifted, -100 where not scored;
    logits are float32, or float64 in a model of that type. With a plain linear head one chunk of
    logits is held, as by ``linear_cross_entropy``; on a CPU a block of it, which fits the cache, is
    handed over at a time. Models that change logits after the head hold N x V.
    """
    labels_BT = inputs["labels"]
    rows_N = (labels_BT[:, 1:] != IGNORED).nonzero()[:, 0]
    if logit_path(model) is not LogitPath.FUSED:
        logits_NV, targets_N = scored_logits(model, inputs)
        return _of_blocks(logits_NV, targets_N, statistics), rows_N

    def of_scored(head: Any, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
        hidden_ND, targets_N = scored(hidden_BTD, labels_BT)
        exact = torch.promote_types(hidden_ND.dtype, torch.float32)
        product = product_type(hidden_ND)
        chunk_tokens = default_chunk_tokens(head.weight.shape[0], product)
        # As in linear_cross_entropy: converted once, and one buffer for all chunks.
        with torch.autocast(hidden_ND.device.type, enabled=False):
            hidden_ND, weight_VD = hidden_ND.to(product), head.weight.to(product)
            bias_V = None if head.bias is None else head.bias.to(product)
            buffer_nV = hidden_ND.new_empty(min(chunk_tokens, len(targets_N)), len(weight_VD))
            return torch.cat(
                [
                    _of_blocks(
                        logits_into(buffer_nV, hidden_ND[part], weight_VD, bias_V),
                        targets_N[part],
                        statistics,
                        exact,
                    )
                    for part in slices(len(targets_N), chunk_tokens)
                ]
            )

    flat = lays_flat(model, inputs)
    return call_with_head(model, inputs, of_scored, flat=flat), rows_N


def _of_blocks(
    logits_NV: torch.Tensor,
    targets_N: torch.Tensor,
    statistics: Statistics,
    exact: torch.dtype | None = None,
) -> torch.Tensor:
    return torch.cat(
        [
            statistics(logits_NV[block].to(exact or logits_NV.dtype), targets_N[block])
            for block in slices(len(targets_N), block_rows(logits_NV))
        ]
    )
