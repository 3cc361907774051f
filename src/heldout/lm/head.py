"""The output head of a causal model, put to use on scored positions only, inside the forward.

For the duration of one call the head module computes something else than all logits. That happens
within ``model(...)``, so PEFT, DDP, autocast and gradient checkpointing wrappers stay in force.
"""

# B batch, T tokens, N scored tokens, V vocabulary, D width

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from heldout.lm.layout import (
    flat_labels,
    flat_layout,
    flat_positions,
    laid_out,
    padded_layout,
    set_layout,
)
from heldout.lm.row_attention import attention_by_rows
from heldout.lm.tokenize import IGNORED, ORIGIN

# (head, hidden_BTD) -> what stands in for the logits
HeadFunction = Callable[[Any, torch.Tensor], torch.Tensor]
# (head, hidden_BTD, labels_BT) -> what stands in for the logits
ScoredFunction = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


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
    model: nn.Module, inputs: Mapping[str, Any], compute: ScoredFunction, *, flat: bool = False
) -> torch.Tensor:
    """What ``compute`` returns in place of the logits, from one call of the model.

    It is handed the labels that belong to its hidden states. With ``flat``, for models of which
    ``heldout.lm.flat_trial`` says that they allow it, rows padded on the right lie one behind the
    other in the model, (1, N), where that leaves out any padding.
    """
    arguments, labels, layout = _arguments(inputs), inputs["labels"], None
    if flat:
        layout = flat_layout(inputs)
    if layout is None:
        set_layout(padded_layout(inputs))
        within: AbstractContextManager[None] = nullcontext()
    else:
        set_layout(layout)
        arguments = {
            "input_ids": laid_out(arguments["input_ids"], layout),
            "position_ids": flat_positions(layout).to(labels.device),
        }
        labels = flat_labels(labels, layout)
        implementation = unwrapped(model).config._attn_implementation
        within = attention_by_rows(implementation, layout.lengths)
    with head_replaced(model, lambda head, hidden: compute(head, hidden, labels)), within:
        return model(**arguments, use_cache=False).logits


def _arguments(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in ("labels", *ORIGIN)}


def scored(hidden_BTD: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states that predict a scored token, and those tokens."""
    hidden_BTD = hidden_BTD[:, -labels_BT.shape[1] :]  # prompt tuning puts virtual tokens first
    targets_BT = labels_BT[:, 1:]
    keep_BT = targets_BT != IGNORED
    return hidden_BTD[:, :-1][keep_BT], targets_BT[keep_BT]


def head_logits(
    model: nn.Module, inputs: Mapping[str, Any], *, flat: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    found: list[torch.Tensor] = []

    def logits_of_scored(
        head: Any, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor
    ) -> torch.Tensor:
        hidden_ND, targets_N = scored(hidden_BTD, labels_BT)
        found.append(targets_N)
        return head(hidden_ND[None])

    logits_1NV = call_with_head(model, inputs, logits_of_scored, flat=flat)
    (targets_N,) = found
    return logits_1NV[0], targets_N


def whole_logits(model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    set_layout(padded_layout(inputs))
    return model(**_arguments(inputs), use_cache=False).logits
