"""Word-for-word matches: equal to a slow search, at their place, never over a document's end."""

import numpy as np
import pytest

from heldout.core.verbatim import Corpora, VerbatimIndex


def longest_by_hand(documents, ids, start, without):
    best = 0
    for number, document in enumerate(documents):
        for place in range(len(document) if number != without else 0):
            length = 0
            while (
                place + length < len(document)
                and start + length < len(ids)
                and document[place + length] == ids[start + length]
            ):
                length += 1
            best = max(best, length)
    return best


@pytest.mark.parametrize("size", [1, 2, 5, 60_000, 300_000])
def test_equals_a_search_at_every_place(size):
    rng = np.random.default_rng(size)
    for _ in range(15):
        vocabulary = rng.choice(size, min(size, 4), replace=False)
        documents = [rng.choice(vocabulary, rng.integers(0, 30)) for _ in range(rng.integers(0, 6))]
        texts = [rng.choice([*vocabulary, size], rng.integers(0, 25)) for _ in range(3)]
        index = VerbatimIndex.build(documents)
        for rows in (None, [0, 1, 2]):
            found = index.matches_of(texts, rows)
            for number, (ids, (lengths_T, places_T)) in enumerate(zip(texts, found, strict=True)):
                without = rows[number] if rows else None
                expected = [longest_by_hand(documents, ids, t, without) for t in range(len(ids))]
                assert lengths_T.tolist() == expected
                for start, (length, place) in enumerate(zip(lengths_T, places_T, strict=True)):
                    if not length:
                        assert place == -1
                        continue
                    document, token = index.document_of(place)
                    there = documents[document][token : token + length]
                    assert document != without
                    assert np.array_equal(there, ids[start : start + length])


def test_a_spliced_fragment_is_found_at_its_offset():
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 5000, 400) for _ in range(50)]
    text = rng.integers(0, 5000, 300)
    text[100:160] = documents[31][217:277]
    index = VerbatimIndex.build(documents)
    lengths_T, places_T = index.matches(text)
    assert lengths_T.argmax() == 100
    assert lengths_T[100] == 60
    assert index.document_of(places_T[100]) == (31, 217)
    assert lengths_T[99] < 5
    assert index.matches(text, without_row=31)[0].max() < 5


def test_repeated_documents_and_runs_are_sorted_out():
    same = np.arange(1000) % 7
    index = VerbatimIndex.build([same, np.zeros(3000, dtype=int), same, same])
    lengths_T, _ = index.matches(np.concatenate([same, [9], np.zeros(500, dtype=int)]))
    assert lengths_T[:1000].tolist() == list(range(1000, 0, -1))
    assert lengths_T[1001:].tolist() == list(range(500, 0, -1))
    assert index.num_tokens == 6000


def test_documents_of_one_row_are_left_out_together():
    index = VerbatimIndex.build([[1, 2, 3, 4], [9, 1, 2], [1, 2, 3]], rows=[5, 8, 5])
    assert index.matches([1, 2, 3, 4])[0].tolist() == [4, 3, 2, 1]
    assert index.matches([1, 2, 3, 4], without_row=5)[0].tolist() == [2, 1, 0, 0]
    assert index.matches([1, 2, 3, 4], without_row=7)[0].tolist() == [4, 3, 2, 1]


def test_samples_have_equally_many_tokens():
    train = [(row, np.arange(row, row + 50)) for row in range(40)]
    heldout = [(row, np.arange(row, row + 30)) for row in range(20)]
    corpora = Corpora.build(train, heldout)
    assert corpora.train.num_tokens == 2000
    assert corpora.train_sample.num_tokens == corpora.heldout.num_tokens == 600
