"""Bits under a word model of the other rows."""

import numpy as np

from heldout.data import surprise
from heldout.data.shingles import token_codes


def test_bits_do_not_depend_on_how_many_tokens_are_counted_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 60, 200).tolist()
    codes = token_codes([" ".join(map(str, rng.integers(0, 90, n))).encode() for n in sizes])
    rows = np.arange(200)
    whole = surprise.cross_validated_bits(codes, rows, rows)
    assert len(np.unique(whole)) > 150
    monkeypatch.setattr(surprise, "_TOKENS_AT_ONCE", 100)
    np.testing.assert_array_equal(surprise.cross_validated_bits(codes, rows, rows), whole)
