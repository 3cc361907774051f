"""Dropout whose masks belong to rows, not to batches.

Within ``dropout_by_row`` a row of the newest batch (``layout.current_layout``) loses the same
numbers whatever rows lie beside it, padded or flat, in whichever micro-batch and process. Each call
takes one number from torch's random state on the CPU, and hashes it with the row's key; so other
calls drop other numbers, and where the state is put back, as in gradient checkpointing, the same.

Tensors that are not known to lie by rows, such as tokens sent to one of several experts, lose
numbers by the keys of the whole batch. Kernels that are no functions of torch (flash attention) and
compiled code draw as they always do.
"""

# B rows, T tokens of the longest, N tokens of all rows, H heads, S keys, E width of a head

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import has_torch_function_unary

from heldout.lm.layout import current_layout
from heldout.lm.noise_words import digest, dropping_factors
from heldout.lm.row_words import RowWords
from heldout.lm.undisturbed import RandomState, replayed
from heldout.lm.weights import seed_of

_TORCH_DROPOUT = F.dropout
_TORCH_ATTENTION = F.scaled_dot_product_attention
_ON_CPU = ("cpu", "meta")

_num_within = 0  # contexts of dropout_by_row


@contextmanager
def dropout_by_row() -> Iterator[None]:
    """Within this context torch's dropout, and that of its fused attention, goes by rows.

    For the whole process; may be nested.
    """
    global _num_within
    _num_within += 1
    functions: Any = F
    functions.dropout, functions.scaled_dot_product_attention = _dropout, _attention
    try:
        yield
    finally:
        _num_within -= 1
        if not _num_within:
            functions.dropout = _TORCH_DROPOUT
            functions.scaled_dot_product_attention = _TORCH_ATTENTION


@contextmanager
def noise_of_step(
    seed: int, step: int, batch: Mapping[str, Any], *, compiled: bool = False
) -> Iterator[None]:
    """Within this context random numbers begin as they always do at this step of this seed.

    On the CPU alike for all batches, since rows tell masks apart; where foreign kernels may draw,
    on an accelerator and in ``compiled`` code, another beginning for each batch.
    """
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    own = seed_of(seed, step)
    other = own
    if (compiled or device.type not in _ON_CPU) and "input_ids" in batch:
        other = seed_of(seed, step, digest(batch["input_ids"].flatten().tolist()))
    with replayed(_seeded(device, other if compiled else own, other)):
        yield


class RunsOfRows:
    """Runs of neighboring rows of one length, whose attention is computed one after the other.

    Each is to compute the same: its calls of dropout take the numbers that those of the first took.
    """

    def __init__(self) -> None:
        self._words = _words()
        self._numbers: list[int] = []

    @contextmanager
    def run(self, first: int, count: int) -> Iterator[None]:
        """Within this context ``count`` rows from ``first`` are a batch of their own."""
        if not _num_within or self._words is None:
            yield
            return
        before, _now.run = _now.run, _Run(self._words.of_run(first, count), self._numbers)
        try:
            yield
        finally:
            _now.run = before


class _Run:
    def __init__(self, words: RowWords, numbers: list[int]):
        self.words = words
        self.numbers = numbers
        self.num_taken = 0

    def next_number(self) -> int:
        if self.num_taken == len(self.numbers):
            self.numbers.append(_drawn_number())
        self.num_taken += 1
        return self.numbers[self.num_taken - 1]


class _Now(threading.local):
    run: _Run | None = None


_now = _Now()


def in_force(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs for a function of torch: for dropout and attention the one by rows, within it."""
    if function is _TORCH_DROPOUT:
        return F.dropout
    return F.scaled_dot_product_attention if function is _TORCH_ATTENTION else function


def row_factors(like_BTX: torch.Tensor, count: int, share: float) -> torch.Tensor:
    """(B or 1, T or 1, count): factors of ``count`` things in each row, for (B, T, ...) or flat.

    0 for a share of them, 1 / (1 - share) for the others.
    """
    words = _words()
    if not _num_within or words is None or not words.is_by_token(like_BTX):
        return F.dropout(like_BTX.new_ones(len(like_BTX), 1, count), share)
    number = _next_number()
    words_B = words.of_rows(like_BTX.device)
    factors_BC = dropping_factors(words_B, count, share, number, like_BTX.dtype)
    if not words.layout.flat:
        return factors_BC[:, None]
    lengths = torch.tensor(words.layout.lengths, device=like_BTX.device)
    return factors_BC.repeat_interleave(lengths, 0, output_size=like_BTX.shape[1])[None]


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    if not (training and 0 < p < 1 and _is_plain(input)):
        return _TORCH_DROPOUT(input, p, training, inplace)
    factors = _factors(input, p)
    return input.mul_(factors) if inplace else input * factors


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Torch's, with weights dropped by rows."""
    if not (0 < dropout_p < 1 and query.ndim == 4 and _is_plain(query)):
        return _TORCH_ATTENTION(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if query.device.type not in _ON_CPU:
        return _attention_of_kernels(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        )
    weights_BHTS = _attention_weights(query, key, attn_mask, is_causal, scale, enable_gqa)
    if enable_gqa:
        value = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    return (weights_BHTS * _factors(weights_BHTS, dropout_p)) @ value


def _attention_of_kernels(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    share: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """Torch's own, which holds no weights, called for each row from a beginning of the row's own.

    Where rows are not known, or flat without ``RunsOfRows``, one call from one of the batch's.
    """
    words, number = _words(), _next_number()
    num, size = len(query), query.shape[2]

    def computed(key_of_row: int, row: slice, length: int) -> torch.Tensor:
        own_seed = seed_of(number, 0, key_of_row)
        q, k, v = (each[row, :, :length] for each in (query, key, value))
        own_mask = mask
        if mask is not None and length < size:
            own_mask = mask[..., :length, :length]
        if own_mask is not None and len(own_mask) == num:
            own_mask = own_mask[row]
        with replayed(_seeded(query.device, own_seed, own_seed)):
            output = _TORCH_ATTENTION(
                q, k, v, own_mask, share, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        return F.pad(output, (0, 0, 0, size - length))

    if words is None or not words.is_padded(num, size) or key.shape[2] != size:
        return computed(0 if words is None else digest(words.layout.keys), slice(None), size)
    rows = zip(words.layout.keys, words.layout.lengths, strict=True)
    return torch.cat([computed(own, slice(at, at + 1), n) for at, (own, n) in enumerate(rows)])


def _attention_weights(
    query_BHTE: torch.Tensor,
    key_BHSE: torch.Tensor,
    mask: torch.Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """(B, H, T, S) as torch's own attention has them.

    A query that a mask of booleans leaves no key attends to all alike, where torch returns 0.
    """
    if enable_gqa:
        key_BHSE = key_BHSE.repeat_interleave(query_BHTE.shape[1] // key_BHSE.shape[1], 1)
    scale = query_BHTE.shape[-1] ** -0.5 if scale is None else scale
    scores_BHTS = (query_BHTE * scale) @ key_BHSE.mT
    if is_causal:
        mask = torch.ones(scores_BHTS.shape[-2:], dtype=torch.bool, device=key_BHSE.device).tril()
    softmax: Callable[..., torch.Tensor] = torch.softmax
    if mask is not None and mask.dtype == torch.bool:
        # Added, and not filled in, which takes longer for all heads than for one.
        least = torch.finfo(scores_BHTS.dtype).min / 2
        mask = torch.zeros_like(mask, dtype=scores_BHTS.dtype).masked_fill_(~mask, least)
    elif mask is not None:
        softmax = torch._safe_softmax  # for queries whose every score is minus infinity
    if mask is not None:
        scores_BHTS = scores_BHTS + mask
    exact = torch.promote_types(scores_BHTS.dtype, torch.float32)
    return softmax(scores_BHTS, -1, dtype=exact).to(query_BHTE.dtype)


def _is_plain(tensor: torch.Tensor) -> bool:
    """No subclass, nobody who follows torch's functions, no compiler: it is ours to compute."""
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and not has_torch_function_unary(tensor)
        and not torch.compiler.is_compiling()
    )


def _seeded(device: torch.device, seed: int, device_seed: int) -> RandomState:
    other = None
    if device.type not in _ON_CPU:
        other = torch.Generator(device).manual_seed(device_seed).get_state()
    return RandomState(device, torch.Generator().manual_seed(seed).get_state(), other)


_newest: list[RowWords] = []  # at most one


def _words() -> RowWords | None:
    if _now.run is not None:
        return _now.run.words
    layout = current_layout()
    if layout is None:
        return None
    if not _newest or _newest[0].layout is not layout:
        _newest[:] = [RowWords(layout)]
    return _newest[0]


def _next_number() -> int:
    return _drawn_number() if _now.run is None else _now.run.next_number()


def _drawn_number() -> int:
    return int(torch.empty((), dtype=torch.int64).random_())


def _factors(tensor: torch.Tensor, share: float) -> torch.Tensor:
    """In the shape of ``tensor``: 0 for a share of its numbers, 1 / (1 - share) for the others."""
    words, number = _words(), _next_number()
    words_X = None if words is None else words.of(tensor)
    if words_X is not None:
        width = tensor.numel() // len(words_X)
        return dropping_factors(words_X, width, share, number, tensor.dtype).view(tensor.shape)
    words_1 = RowWords.of_nothing(tensor.device) if words is None else words.of_batch(tensor.device)
    factors_1X = dropping_factors(words_1, tensor.numel(), share, number, tensor.dtype)
    factors = factors_1X.view(tensor.shape)
    if words is not None and words.is_packed_attention(tensor):
        start = 0
        for row, length in enumerate(words.layout.lengths):
            part = slice(start, start := start + length)
            own = tensor[..., part, part]
            words_X = words.of_run(row, 1).of(own)
            assert words_X is not None
            blocks = dropping_factors(words_X, length, share, number, tensor.dtype)
            factors[..., part, part] = blocks.view(own.shape)
    return factors
