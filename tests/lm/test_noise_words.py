"""Hashes decide as chance would: the right share, by no pattern, and as computed by hand."""

import pytest
import torch

from heldout.lm.noise_words import dropping_factors, place_words

ROWS, TOKENS, WIDTH = 60, 50, 130


def words():
    keys = torch.randint(2**60, (ROWS,), generator=torch.Generator().manual_seed(0))
    return place_words(keys.repeat_interleave(TOKENS), torch.arange(TOKENS).repeat(ROWS))


def is_dropped(share, number):
    return dropping_factors(words(), WIDTH, share, number, torch.float32) == 0


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_as_many_are_dropped_as_by_chance(share):
    """Over all, in each token, in each row, at each place of a token: means and variances."""
    dropped = is_dropped(share, 12345).double().view(ROWS, TOKENS, WIDTH)
    variance = share * (1 - share)
    for axes in [(0, 1, 2), (2,), (1, 2), (0, 1), (0,), (1,)]:
        sums = dropped.sum(axes).flatten()
        num = dropped.numel() / len(sums)
        spread = (sums - share * num) / (variance * num) ** 0.5
        assert abs(spread.mean()) * len(spread) ** 0.5 < 4
        if len(spread) > 1:
            assert abs(spread.square().mean() - 1) < 6 * (2 / len(spread)) ** 0.5


def test_neighbors_rows_places_and_calls_have_nothing_to_do_with_each_other():
    first, second = (is_dropped(0.3, number).double() - 0.3 for number in (7, 8))
    by_row = first.view(ROWS, TOKENS, WIDTH)
    pairs = [
        (first, second),
        (by_row[1:], by_row[:-1]),
        (by_row[:, 1:], by_row[:, :-1]),
        *((first[:, shift:], first[:, :-shift]) for shift in (1, 2, 3, 4, 64)),
    ]
    for one, other in pairs:
        correlation = (one * other).mean() / 0.21
        assert abs(correlation) < 4 / one.numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_makes_up_for_what_is_dropped(dtype):
    factors = dropping_factors(words(), WIDTH, 0.25, 3, dtype)
    assert set(factors.unique().tolist()) == {0.0, torch.tensor(4 / 3, dtype=dtype).item()}
    assert factors.dtype == dtype
    assert dropping_factors(words()[:3], 5, 1e-9, 3, dtype).eq(1).all()


def test_the_hash_is_this_one():
    """The reference: 64-bit words in Python's own numbers, sign and all."""

    def signed(word):
        return (word + 2**63) % 2**64 - 2**63

    def stirred(word):
        for shift, factor in ((32, 0xBF58476D1CE4E5B9), (29, 0x94D049BB133111EB)):
            word = signed((word ^ (word >> shift)) * factor)
        return word

    stride, number, share = 0x9E3779B97F4A7C15, 99, 0.4
    keys, places = [5, 2**59 + 7, 5], [0, 3, 1]
    found = dropping_factors(
        place_words(torch.tensor(keys), torch.tensor(places)), 7, share, number, torch.float64
    )
    for row, (key, place) in enumerate(zip(keys, places, strict=True)):
        token = stirred(signed(stirred(signed(key * stride)) + place * stride))
        for index in range(7):
            word = stirred(signed(token + stirred(signed(index // 4 * stride + number))))
            quarter = (word >> 16 * (index % 4)) % 2**16
            quarter -= 2**16 if quarter >= 2**15 else 0
            assert (found[row, index] == 0) == (quarter < round(share * 2**16) - 2**15)
