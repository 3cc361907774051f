"""Loss, logits and nats of the scored tokens of a batch, as cheaply as the model allows."""

# B batch, T tokens, N scored tokens, V vocabulary, D width

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from heldout.core.regularizer import TokenLoss
from heldout.lm.flat_trial import lays_flat
from heldout.lm.head import call_with_head, head_logits, scored, whole_logits
from heldout.lm.linear_cross_entropy import linear_cross_entropy
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.tokenize import IGNORED


def scored_loss(
    model: nn.Module,
    inputs: Mapping[str, Any],
    token_loss: Sequence[TokenLoss] = (),
) -> tuple[torch.Tensor, int]:
    """Summed loss in nats over the scored tokens of a batch, and their number.

    ``inputs`` are the model's arguments with ``labels`` (B, T), unshifted, -100 where not scored.
    The sum is the cross-entropy plus the terms of ``token_loss``, in float32; never divided, so
    that the caller divides by the tokens of its whole accumulation window. No logits of unscored
    positions are ever computed; with a plain linear head no logits are held at all.
    """
    if logit_path(model) is LogitPath.FUSED:
        counted: list[int] = []

        def loss_of_scored(
            head: Any, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor
        ) -> torch.Tensor:
            hidden_ND, targets_N = scored(hidden_BTD, labels_BT)
            counted.append(len(targets_N))
            loss, _ = linear_cross_entropy(
                hidden_ND, head.weight, targets_N, head.bias, token_loss=token_loss
            )
            return loss

        loss = call_with_head(model, inputs, loss_of_scored, flat=lays_flat(model, inputs))
        return loss, counted[0]
    logits_NV, targets_N = scored_logits(model, inputs)
    loss = F.cross_entropy(logits_NV, targets_N, reduction="sum")
    for term in token_loss:
        loss = loss + term(logits_NV, targets_N).sum()
    return loss, len(targets_N)


def scored_logits(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 logits (N, V) and targets (N,) of the scored tokens, in the order of the batch.

    Whatever the model does to its logits (caps, scales, adapters on the head) is in them. Holds
    N x V numbers.
    """
    if logit_path(model) is LogitPath.WHOLE:
        logits_NV, targets_N = scored(whole_logits(model, inputs), inputs["labels"])
    else:
        logits_NV, targets_N = head_logits(model, inputs, flat=lays_flat(model, inputs))
    return logits_NV.float(), targets_N


@torch.no_grad()
def scored_nats(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy (N,) of each scored token in nats, and the batch row (N,) it belongs to."""
    labels_BT = inputs["labels"]
    rows_N = (labels_BT[:, 1:] != IGNORED).nonzero()[:, 0]
    if logit_path(model) is LogitPath.FUSED:

        def nats_of_scored(
            head: Any, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor
        ) -> torch.Tensor:
            hidden_ND, targets_N = scored(hidden_BTD, labels_BT)
            return linear_cross_entropy(hidden_ND, head.weight, targets_N, head.bias)[1]

        flat = lays_flat(model, inputs)
        return call_with_head(model, inputs, nats_of_scored, flat=flat), rows_N
    logits_NV, targets_N = scored_logits(model, inputs)
    return F.cross_entropy(logits_NV, targets_N, reduction="none"), rows_N
