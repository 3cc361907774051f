"""The output head of a causal model, put to use on scored positions only, inside the forward.

For the duration of one call the head module computes something else than all logits. That happens
within ``model(...)``, so PEFT, DDP, autocast and gradient checkpointing wrappers stay in force.
"""

# B batch, T tokens, N scored tokens, V vocabulary, D width

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from heldout.core.regularizer import TokenLoss
from heldout.lm.linear_cross_entropy import linear_cross_entropy
from heldout.lm.tokenize import IGNORED, ORIGIN

# (head, hidden_BTD) -> what stands in for the logits
HeadFunction = Callable[[Any, torch.Tensor], torch.Tensor]

# Settings by which models of transformers change logits after the head, and what means unchanged.
_AFTER_HEAD = {
    "final_logit_softcapping": (None, 0),  # Gemma 2
    "logits_soft_cap": (None, 0),  # RecurrentGemma
    "softcap": (None, 0),
    "logit_scale": (None, 1),  # Cohere
    "logits_scaling": (None, 1),  # Granite
    "lm_head_multiplier": (None, 1),  # Falcon H1
    "output_multiplier_scale": (None, 1),
    "unpadded_vocab_size": (None,),
}


def supports_fused_head(model: nn.Module) -> bool:
    """Whether logits are just a plain linear layer of the last hidden states.

    Not so where the model caps or scales them afterwards, or where the head carries an adapter, is
    quantized, is a copy kept by PEFT or has been patched or hooked by another tool.
    """
    head = output_head(model)
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    if head._forward_hooks or head._forward_pre_hooks:
        return False
    config = unwrapped(model).config.get_text_config()
    return all(getattr(config, name, None) in plain for name, plain in _AFTER_HEAD.items())


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
    if supports_fused_head(model):
        counted: list[int] = []

        def loss_of_scored(head: Any, hidden_BTD: torch.Tensor) -> torch.Tensor:
            hidden_ND, targets_N = scored(hidden_BTD, inputs["labels"])
            counted.append(len(targets_N))
            loss, _ = linear_cross_entropy(
                hidden_ND, head.weight, targets_N, head.bias, token_loss=token_loss
            )
            return loss

        loss = call_with_head(model, inputs, loss_of_scored)
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
    found: list[torch.Tensor] = []

    def logits_of_scored(head: Any, hidden_BTD: torch.Tensor) -> torch.Tensor:
        hidden_ND, targets_N = scored(hidden_BTD, inputs["labels"])
        found.append(targets_N)
        return head(hidden_ND[None])

    logits_1NV = call_with_head(model, inputs, logits_of_scored)
    return logits_1NV[0].float(), found[0]


@torch.no_grad()
def scored_nats(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy (N,) of each scored token in nats, and the batch row (N,) it belongs to."""
    labels_BT = inputs["labels"]
    rows_N = (labels_BT[:, 1:] != IGNORED).nonzero()[:, 0]
    if supports_fused_head(model):

        def nats_of_scored(head: Any, hidden_BTD: torch.Tensor) -> torch.Tensor:
            hidden_ND, targets_N = scored(hidden_BTD, labels_BT)
            return linear_cross_entropy(hidden_ND, head.weight, targets_N, head.bias)[1]

        return call_with_head(model, inputs, nats_of_scored), rows_N
    logits_NV, targets_N = scored_logits(model, inputs)
    return F.cross_entropy(logits_NV, targets_N, reduction="none"), rows_N


@contextmanager
def head_replaced(model: nn.Module, compute: HeadFunction) -> Iterator[None]:
    """Within this context ``model(**inputs).logits`` is ``compute(head, hidden_BTD)``.

    ``compute`` may call ``head``, which then works as always. Undone also on an exception.
    """
    head = output_head(model)
    own = head.__dict__.get("forward")  # set where another tool has patched this instance
    original = head.forward

    def replaced(hidden_BTD: torch.Tensor) -> torch.Tensor:
        head.forward = original
        try:
            return compute(head, hidden_BTD)
        finally:
            head.forward = replaced

    head.forward = replaced
    try:
        yield
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own


def output_head(model: nn.Module) -> nn.Module:
    """The module that turns hidden states into logits, under whatever wrappers."""
    head = unwrapped(model).get_output_embeddings()
    assert head is not None, f"{type(unwrapped(model)).__name__} has no output embedding"
    return head


def unwrapped(model: Any) -> Any:
    """The transformers model inside DDP, compile and PEFT wrappers."""
    # Read from _modules: a compiled model forwards attributes to the one inside.
    while inner := model._modules.get("_orig_mod") or model._modules.get("module"):
        model = inner
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def call_with_head(
    model: nn.Module, inputs: Mapping[str, Any], compute: HeadFunction
) -> torch.Tensor:
    """What ``compute`` returns in place of the logits, from one call of the model."""
    arguments = {k: value for k, value in inputs.items() if k not in ("labels", *ORIGIN)}
    with head_replaced(model, compute):
        return model(**arguments, use_cache=False).logits


def scored(hidden_BTD: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states that predict a scored token, and those tokens."""
    hidden_BTD = hidden_BTD[:, -labels_BT.shape[1] :]  # prompt tuning puts virtual tokens first
    targets_BT = labels_BT[:, 1:]
    keep_BT = targets_BT != IGNORED
    return hidden_BTD[:, :-1][keep_BT], targets_BT[keep_BT]
