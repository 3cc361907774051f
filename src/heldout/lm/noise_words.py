"""Which numbers are dropped, from hashes of where they stand: no generator, no order of drawing.

A number's fate follows from a word of the token (or row) it belongs to, its place within that, and
the call's own number, by two rounds of multiplication and folding of 64-bit words, of which each
decides on four numbers. Neighbors, padding and device have no part in it.
"""

# X tokens, B rows, F numbers of a token, G groups of four of them

from collections.abc import Sequence

import torch

_STRIDE, _FIRST, _SECOND = (  # splitmix64's
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_AT_ONCE = 2**15  # words, which stay in a processor's cache
_VALUES = 2**16  # of a quarter of a word


def place_words(keys_X: torch.Tensor, places_X: torch.Tensor) -> torch.Tensor:
    """(X,) a word for each place of the row with each key; both int64, and so is the result."""
    words_X = _stirred(keys_X * _STRIDE)
    return _stirred(words_X + places_X * _STRIDE)


def call_words(number: int, count: int, device: torch.device) -> torch.Tensor:
    """(count,) words for the places within a token, of the call with this number."""
    return _stirred(torch.arange(count, device=device) * _STRIDE + number)


def dropping_factors(
    words_X: torch.Tensor, width: int, share: float, number: int, dtype: torch.dtype
) -> torch.Tensor:
    """(X, width): 0 for a share of numbers, 1 / (1 - share) for the others.

    The share is rounded to a multiple of 2**-16, by which what is kept is divided.
    """
    num_dropped = min(round(share * _VALUES), _VALUES - 1)
    call_G = call_words(number, -(-width // 4), words_X.device)
    factors_XF = torch.empty(len(words_X), width, dtype=dtype, device=words_X.device)
    num = len(words_X)
    if words_X.device.type == "cpu":
        num = min(num, max(1, _AT_ONCE // len(call_G)))
    words = words_X.new_empty(num, len(call_G))
    spare = torch.empty_like(words)
    for start in range(0, len(words_X), max(1, num)):
        part_X1 = words_X[start : start + num, None]
        part = torch.add(part_X1, call_G, out=words[: len(part_X1)])
        quarters = _stir(part, spare[: len(part)]).view(torch.int16)[:, :width]
        own = factors_XF[start : start + num]
        torch.ge(quarters, num_dropped - _VALUES // 2, out=own)
        own.mul_(_VALUES / (_VALUES - num_dropped))
    return factors_XF


def digest(keys: Sequence[int]) -> int:
    """One number below 2**62 for several, in their order."""
    return hash(tuple(keys)) % 2**62


def _stirred(words: torch.Tensor) -> torch.Tensor:
    return _stir(words, torch.empty_like(words))


def _stir(words: torch.Tensor, spare: torch.Tensor) -> torch.Tensor:
    """Every bit of each word comes to depend on all of its bits; in place."""
    for shift, factor in ((32, _FIRST), (29, _SECOND)):
        torch.bitwise_right_shift(words, shift, out=spare)
        words.bitwise_xor_(spare).mul_(factor)
    return words
