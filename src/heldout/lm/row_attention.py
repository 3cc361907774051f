"""Attention within each row of a batch whose rows lie one behind the other.

What a model computes its attention with (``eager`` or ``sdpa``) is called once for each run of
neighbors of one length, without a mask where the row is causal and no more. The model is not
changed: the registries of transformers hand out functions that do as ever for anything but such
a batch, also when gradient checkpointing computes a layer again in the backward.
"""

# B rows, L tokens of a row, N tokens of all rows, H heads, D width of a head

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import AttentionInterface

from heldout.lm.row_noise import RunsOfRows

IMPLEMENTATIONS = ("sdpa", "eager")  # of transformers, that can be called row by row

_T = torch.Tensor
_HALF = (torch.float16, torch.bfloat16)
_LARGEST_HEAD = 256  # of the kernel for rows of many lengths


class NotByRows(RuntimeError):
    """What a model asks of its attention is not known to stay within rows."""


@dataclass(frozen=True)
class Rows:
    """Stands where layers expect a mask."""

    lengths: tuple[int, ...]
    mask_11LL: torch.Tensor | None  # of the longest row; a shorter one takes its beginning
    causal_up_to: int  # rows no longer than this need no mask

    def __getitem__(self, places: Any) -> "Rows":
        if not all(isinstance(each, slice) and not each.start and not each.stop for each in places):
            raise NotByRows("a layer takes a part of its mask")
        return self


@dataclass(frozen=True)
class Seen:
    """One call of attention, as a trial compares it."""

    inputs: tuple[torch.Tensor, ...]  # (B, H, T, D) each
    output: torch.Tensor  # (B, T, H, D)


class _Now(threading.local):
    lengths: tuple[int, ...] | None = None
    seen: list[Seen] | None = None


_now = _Now()


@contextmanager
def attention_by_rows(implementation: str, lengths: Sequence[int]) -> Iterator[None]:
    """Within this context a model of that implementation is called with rows of these lengths.

    Its ``input_ids`` are (1, N). Raises NotByRows from the call where its mask is more than causal,
    with a window or in chunks.
    """
    if implementation in IMPLEMENTATIONS:  # others read the positions
        _install(implementation)
        _now.lengths = tuple(lengths)
    try:
        yield
    finally:
        _now.lengths = None


@contextmanager
def attention_seen(implementation: str) -> Iterator[list[Seen]]:
    """Within this context every call of attention is noted, flat or not."""
    _install(implementation)
    seen: list[Seen] = []
    _now.seen = seen
    try:
        yield seen
    finally:
        _now.seen = None


def _install(implementation: str) -> None:
    """Have the registries hand out functions that know rows; once, and again if replaced.

    The functions of attention are asked for by layers, with a default of their own for ``eager``.
    """
    own_mask = ALL_MASK_ATTENTION_FUNCTIONS[implementation]
    if not hasattr(own_mask, "knows_rows"):
        ALL_MASK_ATTENTION_FUNCTIONS[implementation] = _mask_of_rows(own_mask, implementation)
    own_interface: Any = AttentionInterface.get_interface
    if hasattr(own_interface, "knows_rows"):
        return

    @functools.wraps(own_interface)
    def get_interface(self: Any, name: Any, default: Any) -> Any:
        found = own_interface(self, name, default)
        # A model that is compiled gets padded rows, and its compiler reads no caches.
        return found if torch.compiler.is_compiling() else _attention_of_rows(found)

    get_interface.knows_rows = True  # type: ignore[attr-defined]
    registry: Any = AttentionInterface
    registry.get_interface = get_interface


def _mask_of_rows(own: Callable[..., Any], implementation: str) -> Callable[..., Any]:
    @functools.wraps(own)
    def mask(*args: Any, **kwargs: Any) -> Any:
        if _now.lengths is None:
            return own(*args, **kwargs)
        return _rows(own, implementation, _now.lengths, **kwargs)

    mask.knows_rows = True  # type: ignore[attr-defined]
    return mask


def _rows(
    own: Callable[..., Any], implementation: str, lengths: tuple[int, ...], **asked: Any
) -> Rows:
    num = sum(lengths)
    plain = {"batch_size": 1, "q_length": num, "kv_length": num, "q_offset": 0, "kv_offset": 0}
    if any(asked.get(name, wanted) != wanted for name, wanted in plain.items()):
        raise NotByRows("the mask is not that of the batch")
    if asked.get("attention_mask") is not None or asked.get("allow_is_bidirectional_skip"):
        raise NotByRows("the mask is not causal")
    if asked.get("use_vmap"):
        raise NotByRows("the model adds a mask of its own")
    longest = max(lengths)
    causal_up_to = longest if asked.get("local_size") is None else int(asked["local_size"])
    if implementation == "eager":
        causal_up_to = 0
    if longest <= causal_up_to:
        return Rows(lengths, None, causal_up_to)
    # Where transformers has seen the positions go back to 0, places count within their row.
    knows_rows = not asked.get("allow_is_causal_skip", True)
    place = lengths.index(longest)
    start = sum(lengths[:place]) if knows_rows else 0
    cut = {"q_length": longest, "kv_length": longest, "q_offset": start, "kv_offset": start}
    mask_11LL = own(**{**asked, **cut, "allow_is_causal_skip": False})
    return Rows(lengths, mask_11LL, causal_up_to)


@functools.cache
def _attention_of_rows(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def attention(
        module: Any, query: _T, key: _T, value: _T, attention_mask: Any, *args: Any, **kwargs: Any
    ) -> Any:
        inputs = (query, key, value)
        if isinstance(attention_mask, Rows):
            found = _by_rows(own, module, inputs, attention_mask, *args, **kwargs)
        elif _now.lengths is not None:
            raise NotByRows("a layer does not get the mask of its model")
        else:
            found = own(module, *inputs, attention_mask, *args, **kwargs)
        if _now.seen is not None:
            _now.seen.append(Seen(inputs, found[0]))
        return found

    return attention


def _by_rows(
    own: Callable[..., Any],
    module: Any,
    inputs_1HND: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rows: Rows,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    num = sum(rows.lengths)
    if any(each.shape[0] != 1 or each.shape[2] != num for each in inputs_1HND):
        raise NotByRows("keys are not those of the batch's tokens")
    if kwargs.get("position_bias") is not None:
        raise NotByRows("positions are added to the scores")
    if rows.mask_11LL is None and not args and _has_kernel(own, inputs_1HND, kwargs):
        return _varlen(inputs_1HND, rows.lengths, kwargs.get("scaling")), None
    runs = [(length, len(list(alike))) for length, alike in itertools.groupby(rows.lengths)]
    # Split at once: the backward of a slice fills a tensor of all tokens for each row.
    parts = [each[0].split([length * n for length, n in runs], 1) for each in inputs_1HND]
    outputs, noise, first = [], RunsOfRows(), 0
    for (length, count), *part in zip(runs, *parts, strict=True):
        mask = None
        if length > rows.causal_up_to:
            assert rows.mask_11LL is not None
            mask = rows.mask_11LL[..., :length, :length]
        cut = [each.unflatten(1, (count, length)).transpose(0, 1) for each in part]
        with noise.run(first, count):
            output, _ = own(module, *cut, mask, *args, **kwargs)
        outputs.append(output.flatten(0, 1))
        first += count
    return torch.cat(outputs)[None], None


def _has_kernel(own: Any, inputs_1HND: Sequence[torch.Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether torch's kernel for rows of many lengths computes this attention."""
    query, key, value = inputs_1HND
    return (
        query.is_cuda
        and query.dtype in _HALF
        and own.__name__ == "sdpa_attention_forward"
        and not kwargs.get("dropout")
        and query.shape[-1] == key.shape[-1] == value.shape[-1] <= _LARGEST_HEAD
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and torch.version.hip is None
        and not _get_current_function_mode_stack()  # that want to see torch's own functions
    )


def _varlen(
    inputs_1HND: Sequence[torch.Tensor], lengths: tuple[int, ...], scale: float | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (each[0].transpose(0, 1).contiguous() for each in inputs_1HND)
    bounds = _bounds(lengths, query.device)
    longest = max(lengths)
    output_NHD = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output_NHD, torch.Tensor)
    return output_NHD[None]


@functools.lru_cache(maxsize=4)
def _bounds(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where rows begin and end: the same for all layers of a call."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)
