"""Whether a model's rows may lie one behind the other, without padding: found by trying, once.

Both ways are tried on rows of different lengths: queries, keys, values and outputs of every
attention, nats and gradients of embedded tokens must be equal up to rounding, in evaluation and in
training, and no row may have a gradient to another's tokens.
"""

# B rows, T tokens, N tokens of all rows, D width

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from heldout.core.errors import UserError
from heldout.lm.head import head_logits, unwrapped
from heldout.lm.layout import flat_layout, laid_out
from heldout.lm.logit_path import LogitPath, logit_path
from heldout.lm.row_attention import IMPLEMENTATIONS, Seen, attention_seen
from heldout.lm.tokenize import IGNORED
from heldout.lm.trial import plain_ids, training_trial
from heldout.lm.undisturbed import evaluation_mode, random_state, replayed

Padding = Literal["auto", "on", "off"]

_LENGTHS = (7, 3, 3, 10)  # of the rows of a trial; neighbors of one length go together
_FLASH = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
_ALIKE, _ALIKE_HALF = 1e-4, 5e-2  # of a tensor's size; another position or row shows far above

EXACT = ""
OTHER_ATTENTION = "its attention is not one that can be computed row by row"
COMPILED = "it is compiled, and would be anew for each batch"
VIRTUAL_TOKENS = "virtual tokens are put before its rows"
SPLIT_UP = "its batches are split over several devices"
NOT_EXACT = "tried, its rows lying one behind the other change the result"
ASKED = "train.padding=on"

_DROPS, _ATTENTION = (F.dropout, torch.dropout, torch.dropout_), F.scaled_dot_product_attention

_found: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()
_beyond: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_mode: Padding = "auto"


@contextmanager
def padding(mode: Padding) -> Iterator[None]:
    """Within this context models are called as ``train.padding`` says."""
    global _mode
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def reason_for_padding(model: nn.Module) -> str:
    """Why the model is given padded rows, in words; empty where it is not.

    Under ``train.padding=off`` a UserError says so instead.
    """
    if _mode == "on":
        return ASKED
    reason = _reason(model)
    if reason and _mode == "off":
        raise UserError(
            f"train.padding=off is not exact for {type(unwrapped(model)).__name__}: {reason}. "
            "Set train.padding=auto."
        )
    return reason


def padding_words(model: nn.Module) -> str:
    """Whether padded tokens are computed, and why."""
    if reason := reason_for_padding(model):
        return f"rows are padded to one length: {reason}"
    return "no padded tokens are computed"


def lays_flat(model: nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Whether this batch may go through the model flat. Tried once a model; see the module."""
    mask_BT = inputs.get("attention_mask")
    if mask_BT is None or mask_BT.ndim != 2 or "position_ids" in inputs or len(mask_BT) < 2:
        return False
    return not reason_for_padding(model) and _within_reach(model, int(mask_BT.sum()))


def _reason(model: nn.Module) -> str:
    wrapper: Any = model
    while wrapper is not None:
        if "_orig_mod" in wrapper._modules or getattr(wrapper, "_compiled_call_impl", None):
            return COMPILED
        if isinstance(wrapper, nn.DataParallel):
            return SPLIT_UP
        wrapper = wrapper._modules.get("_orig_mod") or wrapper._modules.get("module")
    if getattr(_active_adapter(model), "is_prompt_learning", False):
        return VIRTUAL_TOKENS
    inner = unwrapped(model)
    implementation = str(getattr(inner.config, "_attn_implementation", None))
    if implementation not in IMPLEMENTATIONS + _FLASH:
        return OTHER_ATTENTION
    reasons = _found.setdefault(inner, {})
    if implementation not in reasons:
        if any(isinstance(each, DTensor) for each in inner.parameters()):
            return NOT_EXACT  # other processes may not be trying too
        reasons[implementation] = EXACT if _is_exact(model, inner, implementation) else NOT_EXACT
    return reasons[implementation]


def _active_adapter(model: Any) -> Any:
    while inner := model._modules.get("_orig_mod") or model._modules.get("module"):
        model = inner
    return getattr(model, "active_peft_config", None)


def _is_exact(model: nn.Module, inner: Any, implementation: str) -> bool:
    if logit_path(model) is LogitPath.WHOLE:
        return False
    batch = _trial_batch(inner)
    with ExitStack() as stack:
        stack.enter_context(replayed(random_state(batch["input_ids"].device)))
        try:
            with evaluation_mode(inner):
                if not _agree(inner, batch, implementation):
                    return False
            with training_trial(inner), _NoDropout():
                return _agree(inner, batch, implementation)
        except Exception:  # a model's own code may fail anywhere on what it does not expect
            return False


def _trial_batch(model: Any) -> dict[str, torch.Tensor]:
    ids = iter(plain_ids(model, sum(_LENGTHS)))
    shape = (len(_LENGTHS), max(_LENGTHS))
    batch = {name: torch.zeros(shape, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    for row, length in enumerate(_LENGTHS):
        batch["input_ids"][row, :length] = torch.tensor([next(ids) for _ in range(length)])
        batch["attention_mask"][row, :length] = 1
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    device = next(model.parameters()).device
    return {name: each.to(device) for name, each in batch.items()}


@dataclass(frozen=True)
class _Tried:
    attention: list[Seen]
    nats_N: torch.Tensor
    gradients_1ND: torch.Tensor
    others_1ND: torch.Tensor  # gradient of the last row's nats


def _agree(model: Any, batch: dict[str, torch.Tensor], implementation: str) -> bool:
    padded, flat = (_tried(model, batch, implementation, flat=flat) for flat in (False, True))
    if len(padded.attention) != len(flat.attention):
        return False
    layout = flat_layout(batch)
    assert layout is not None
    if flat.others_1ND[:, : -layout.lengths[-1]].any():
        return False
    pairs = [(padded.nats_N, flat.nats_N), (padded.gradients_1ND, flat.gradients_1ND)]
    for one, other in zip(padded.attention, flat.attention, strict=True):
        for values_BHTD, values_1HND in zip(one.inputs, other.inputs, strict=True):
            values_BTHD = values_BHTD.transpose(1, 2)
            pairs.append((laid_out(values_BTHD, layout), values_1HND.transpose(1, 2)))
        pairs.append((laid_out(one.output, layout), other.output))
    return all(_close(*pair) for pair in pairs)


def _tried(
    model: Any, batch: dict[str, torch.Tensor], implementation: str, *, flat: bool
) -> _Tried:
    layout = flat_layout(batch)
    leaves: list[torch.Tensor] = []

    def lifted(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        leaves.append(torch.zeros_like(output).requires_grad_())
        return output + leaves[-1]

    handle = model.get_input_embeddings().register_forward_hook(lifted)
    try:
        with torch.enable_grad(), attention_seen(implementation) as seen:
            logits_NV, targets_N = head_logits(model, batch, flat=flat)
            nats_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
            attention = [Seen(tuple(e.detach() for e in s.inputs), s.output.detach()) for s in seen]
            last = nats_N[1 - _LENGTHS[-1] :].sum()
            (others,) = torch.autograd.grad(last, leaves[:1], retain_graph=True)
            (gradients,) = torch.autograd.grad(nats_N.sum(), leaves[:1])
    finally:
        handle.remove()
    if len(leaves) != 1:
        raise RuntimeError("the embedding is used more than once")
    return _Tried(attention, nats_N.detach(), laid_out(gradients, layout), laid_out(others, layout))


class _NoDropout(TorchFunctionMode):
    """Within it nothing is dropped, whatever modules and settings say."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPS:
            return args[0] if args else kwargs["input"]
        if func is _ATTENTION:
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


def _within_reach(model: nn.Module, num_tokens: int) -> bool:
    """Whether the model holds no table of positions that so many tokens run out of."""
    inner = unwrapped(model)
    limit = getattr(inner.config.get_text_config(), "max_position_embeddings", None) or 0
    if num_tokens <= limit or not limit:
        return True
    if inner not in _beyond:
        tensors = [*inner.parameters(), *inner.buffers()]
        sizes = {size for each in tensors for size in each.shape}
        if not sizes & {limit, limit + 1, limit + 2}:
            _beyond[inner] = True
        elif dist.is_available() and dist.is_initialized():
            return False  # other processes may not be trying too
        else:
            _beyond[inner] = _reaches(inner, limit)
    return _beyond[inner]


@torch.no_grad()
def _reaches(model: Any, limit: int) -> bool:
    """Whether more tokens than positions, in short rows, have the nats that these rows have."""
    length = max(_LENGTHS)
    ids_T = torch.tensor(plain_ids(model, length), device=next(model.parameters()).device)
    num = limit // length + 2
    rows_BT = ids_T.expand(num, length).clone()
    mask_BT = torch.ones_like(rows_BT)
    mask_BT[0, -1] = 0  # so that there is padding to leave out
    labels_BT = rows_BT.masked_fill(mask_BT == 0, IGNORED)
    whole = {"input_ids": rows_BT, "attention_mask": mask_BT, "labels": labels_BT}
    few = {name: each[-2:] for name, each in whole.items()}
    with evaluation_mode(model), replayed(random_state(ids_T.device)):
        try:
            expected_NV, _ = head_logits(model, few)
            logits_NV, _ = head_logits(model, whole, flat=True)
        except Exception:
            return False
    return _close(expected_NV, logits_NV[-len(expected_NV) :])


def _close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal up to the rounding of their type, by the size of the whole tensor."""
    if first.shape != second.shape:
        return False
    exact = first.dtype in (torch.float32, torch.float64)
    first, second = first.cpu().double(), second.cpu().double()  # mps has no float64
    difference, size = (first - second).norm(), first.norm()
    return bool(difference <= (_ALIKE if exact else _ALIKE_HALF) * size)
