"""Paraphrases among embeddings: planted neighbors are told, rows of one subject are not."""

import numpy as np
import pytest

from heldout.data import paraphrases as module
from heldout.data.paraphrases import paraphrases


def unit(array):
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def planted(num_train=300, num_pairs=20, num_subjects=6, seed=0):
    """Rows around a few subjects; the first other rows lie close to the first training rows."""
    rng = np.random.default_rng(seed)
    subjects = 1.5 * rng.normal(size=(num_subjects, 32))
    train = subjects[np.arange(num_train) % num_subjects] + rng.normal(size=(num_train, 32))
    others = subjects[np.arange(100) % num_subjects] + rng.normal(size=(100, 32))
    others[:num_pairs] = train[:num_pairs] + 0.25 * rng.normal(size=(num_pairs, 32))
    rows = unit(np.concatenate([train, others]))
    return rows, np.arange(num_train), np.arange(num_train, num_train + 100)


def test_planted_neighbors_are_told_and_rows_of_one_subject_are_not():
    rows, train, others = planted()
    found = paraphrases(rows, train, others, np.arange(len(rows)))
    told = {(a, b) for a, b, _ in found.pairs}
    expected = {(place, 300 + place) for place in range(20)}
    assert len(told & expected) >= 19
    assert len(told - expected) <= 1
    assert found.control_share < 0.02
    for a, b, cosine in found.pairs:
        assert cosine == pytest.approx(float(rows[a] @ rows[b]), abs=1e-5)


def test_blocks_change_nothing(monkeypatch):
    rows, train, others = planted()
    whole = paraphrases(rows, train, others, np.arange(len(rows)))
    monkeypatch.setattr(module, "_BLOCK", 17)
    monkeypatch.setattr(module, "_BLOCK_TRAIN", 31)
    in_blocks = paraphrases(rows, train, others, np.arange(len(rows)))
    assert [pair[:2] for pair in in_blocks.pairs] == [pair[:2] for pair in whole.pairs]
    assert in_blocks.least_margin == pytest.approx(whole.least_margin, abs=1e-5)


def test_what_is_known_to_belong_together_is_neither_told_nor_a_control():
    rows, train, others = planted()
    alone = paraphrases(rows, train, others, np.arange(len(rows)))
    known = np.arange(len(rows))
    known[300:320] = known[:20]
    assert len(paraphrases(rows, train, others, known).pairs) <= 1
    # A third of the training rows stand there twice, as one group.
    rows = np.concatenate([rows, rows[:100]])
    more = np.concatenate([train, np.arange(400, 500)])
    known = np.concatenate([np.arange(400), np.arange(100)])
    twice = paraphrases(rows, more, others, known)
    assert twice.least_margin == pytest.approx(alone.least_margin, abs=0.1)
    assert twice.control_share < 0.02


def test_too_few_rows_are_no_control():
    rows, train, others = planted()
    assert paraphrases(rows, train[:29], others, np.arange(len(rows))) is None
    assert paraphrases(rows, train, others, np.zeros(len(rows), dtype=int)) is None
