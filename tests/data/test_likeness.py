"""Many pairs of sets compared at once, against the definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heldout.data.likeness import in_many, num_not_among, similarities, without_usual
from heldout.data.pieces import FEW_PIECES
from heldout.data.shingles import Codes

SETS = st.lists(st.sets(st.integers(0, 60), min_size=1, max_size=40), min_size=2, max_size=6)


def codes_of(sets):
    flat = [piece for each in sets for piece in sorted(each)]
    return Codes(np.array(flat, dtype=np.uint32), np.cumsum([len(each) for each in sets]))


@given(SETS, st.integers(0, 2**20))
@settings(deadline=None)
def test_similarities_are_those_of_sets(sets, factor):
    sets = [{2 * piece * (factor + 1) for piece in each} for each in sets]
    many = [each | set(range(10**7, 10**7 + 4 * FEW_PIECES, 2)) for each in sets]
    left, right = np.triu_indices(len(many), 1)
    found = similarities(codes_of(many), left, right, 0.96)
    for a, b, similarity in zip(left.tolist(), right.tolist(), found.tolist(), strict=True):
        exact = len(many[a] & many[b]) / len(many[a] | many[b])
        assert similarity == (exact if exact >= 0.96 else 0.0)


@given(SETS, st.sets(st.integers(0, 60)))
@settings(deadline=None)
def test_usual_pieces_count_only_where_they_are_all(sets, usual):
    codes, sorted_usual = codes_of(sets), np.array(sorted(usual), dtype=np.uint32)
    rest = without_usual(codes, sorted_usual)
    assert [set(rest.of(place).tolist()) for place in range(len(sets))] == [
        each - usual or each for each in sets
    ]
    assert num_not_among(codes, sorted_usual).tolist() == [len(each - usual) for each in sets]
    counts = {piece: sum(piece in each for each in sets) for each in sets for piece in each}
    assert in_many(codes, 1).tolist() == sorted(p for p, num in counts.items() if num > 1)
