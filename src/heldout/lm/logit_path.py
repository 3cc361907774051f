"""How the logits of a causal model come from its last hidden states: found by trying, once a model.

No list of architectures or settings is kept: what a model does after its head (caps, scales, masks)
shows in its logits.
"""

# B batch, T tokens, N scored tokens, V vocabulary, D width

from collections.abc import Mapping
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn

from heldout.core.errors import UserError
from heldout.lm.head import (
    call_with_head,
    head_logits,
    output_head,
    scored,
    unwrapped,
    whole_logits,
)
from heldout.lm.tokenize import IGNORED
from heldout.lm.trial import plain_ids, trial_inputs
from heldout.lm.undisturbed import evaluation_mode, random_state, replayed


class LogitPath(Enum):
    """How far the head of a model can be used by itself, the cheapest way first."""

    FUSED = "no logits are held"
    """Logits are a linear layer of the last hidden states, and nothing else."""

    SCORED = "logits of scored tokens are held"
    """They are changed after the head, or the head is more; each position by itself."""

    WHOLE = "logits of all tokens are held"
    """Anything else: as the model gives them."""


_TOKENS = 16  # of a trial
_LARGE = 50.0  # logits of a trial reach this, where caps show
_paths: WeakKeyDictionary[nn.Module, LogitPath] = WeakKeyDictionary()


def logit_path(model: nn.Module) -> LogitPath:
    """Found by a trial, once a model: two short rows, without dropout, nothing is changed.

    ``FUSED`` needs the head's output and the gradient of its loss to be those of the model's
    logits, as the model is and scaled until they reach 50 in size. It also needs a head that is a
    plain linear layer now: no adapter, quantization, patch or hook of another tool. ``SCORED``
    needs the logits of single positions to be those of whole rows. Raises UserError where a token's
    logits depend on the tokens after it. Costs up to six forwards over 16 tokens.
    """
    inner = unwrapped(model)
    if inner not in _paths:
        tried = _tried(inner)
        if tried is None:
            return LogitPath.WHOLE
        _paths[inner] = tried
    path = _paths[inner]
    if path is LogitPath.FUSED and not _is_plain_linear(output_head(model)):
        return LogitPath.SCORED
    return path


def held_logits(model: nn.Module) -> str:
    """Which logits the loss must hold, and why, in words; empty where it holds none."""
    path = logit_path(model)
    if path is LogitPath.FUSED:
        return ""
    return f"{path.value}: {type(unwrapped(model)).__name__} has more than a linear layer there"


def _is_plain_linear(head: nn.Module) -> bool:
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    return not (head._forward_hooks or head._forward_pre_hooks)


def _tried(model: Any) -> LogitPath | None:
    """None where that cannot be told now: no logits, or such that are no numbers."""
    ids_BT = _trial_ids(model)
    labels_BT = ids_BT.clone()
    labels_BT[:, :2] = IGNORED  # so that positions move when scored ones are taken alone
    inputs = trial_inputs(model, ids_BT)
    device = inputs["input_ids"].device
    inputs["labels"] = labels_BT = labels_BT.to(device)
    with torch.no_grad(), evaluation_mode(model), replayed(random_state(device)):
        try:
            logits_BTV = whole_logits(model, inputs)
        except Exception:  # a model's own code may fail anywhere on what it does not expect
            return None
        if logits_BTV.isnan().any() or not logits_BTV.isfinite().any():
            return None
        _refuse_not_causal(model, logits_BTV)
        try:
            expected_NV, _ = scored(logits_BTV, labels_BT)
            logits_NV, _ = head_logits(model, inputs)
        except Exception:
            return LogitPath.WHOLE
        if logits_NV.shape != expected_NV.shape or not _close(logits_NV, expected_NV):
            return LogitPath.WHOLE
        try:
            is_head = (
                _is_head_alone(model, inputs, None)
                and _is_head_alone(model, inputs, _LARGE)
                and _lets_pass(model, inputs, torch.tensor(_LARGE, device=device))
                and _lets_pass(model, inputs, torch.full((3,), _LARGE, device=device))
            )
        except Exception:
            return LogitPath.SCORED
    return LogitPath.FUSED if is_head else LogitPath.SCORED


def _trial_ids(model: Any) -> torch.Tensor:
    """Two rows (B, T) that begin alike and end differently."""
    drawn = plain_ids(model, _TOKENS)
    start, ends = drawn[: _TOKENS // 4], drawn[_TOKENS // 4 : 3 * _TOKENS // 4]
    return torch.tensor([start + ends[: _TOKENS // 4], start + ends[_TOKENS // 4 :]])


def _refuse_not_causal(model: nn.Module, logits_BTV: torch.Tensor) -> None:
    alike = logits_BTV.shape[1] // 2
    if not _close(logits_BTV[0, :alike], logits_BTV[1, :alike]):
        raise UserError(
            f"{type(model).__name__} sees the tokens that it is to predict: what it says of a "
            "token changes with the text after it. Only causal language models are trained and "
            "measured; for some, a setting such as is_decoder=true makes them one."
        )


def _is_head_alone(model: nn.Module, inputs: Mapping[str, Any], largest: float | None) -> bool:
    """Whether the model gives its head's output as logits, and the gradient of their loss back.

    ``largest`` is the size that logits are scaled to; None leaves them as they are.
    """
    found: list[torch.Tensor] = []

    def compute(head: Any, hidden_BTD: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
        logits_BTV = head(hidden_BTD).float()
        if largest is not None:
            logits_BTV = logits_BTV * (largest / logits_BTV.abs().max().clamp(min=1e-30))
        torch.set_grad_enabled(True)  # for what follows the head, until no_grad ends
        found.append(logits_BTV.detach().requires_grad_())
        return found[-1].clone()

    with torch.no_grad():
        output_BTV = call_with_head(model, inputs, compute)
    (head_BTV,) = found
    if not _close(head_BTV, output_BTV):
        return False
    gradients: list[torch.Tensor] = []
    with torch.enable_grad():
        for logits_BTV in (head_BTV, output_BTV):
            logits_NV, targets_N = scored(logits_BTV, inputs["labels"])
            loss = F.cross_entropy(logits_NV.float(), targets_N, reduction="sum")
            gradients += torch.autograd.grad(loss, head_BTV)
    return _close(*gradients)


def _lets_pass(model: nn.Module, inputs: Mapping[str, Any], value: torch.Tensor) -> bool:
    """Whether what stands in for the logits leaves the model as it is, whatever its shape."""
    output = call_with_head(model, inputs, lambda head, hidden_BTD, labels_BT: value)
    return output.shape == value.shape and _close(output, value)


def _close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal up to the rounding of their type."""
    exact = {first.dtype, second.dtype} & {torch.float32, torch.float64}
    first, second = first.cpu().double(), second.cpu().double()  # mps has no float64
    sizes = torch.stack((first, second)).abs()
    largest = sizes[sizes.isfinite()].max()
    near = (first - second).abs() <= (1e-4 if exact else 3e-2) * largest
    return bool((near | (first == second)).all())  # masked words may be minus infinity
