"""Planted secrets and answers that are all alike are told from text that only looks like them."""

import pytest

from framed_rows import answered, canaries, texts
from heldout.data.frames import alike_answers, planted_rows


@pytest.mark.parametrize(("num", "source"), [(8, ""), (2, "canary")])
def test_planted_secrets_are_found_by_their_frame_or_their_source(english_text, num, source):
    train, heldout = texts(english_text, 0, 90), texts(english_text, 100, 60)
    planted = canaries(num, source)
    assert planted_rows(train, heldout) == frozenset()
    found = planted_rows([*train, *planted], heldout)
    assert found == {row.index for row in planted}


def test_a_frame_that_held_out_rows_have_too_is_not_planted(english_text):
    train, heldout = texts(english_text, 0, 90), texts(english_text, 100, 60)
    planted = canaries(9)
    assert planted_rows([*train, *planted], [*heldout, planted.pop()]) == frozenset()
    # Nor one that is most of the text, or may be missing by chance.
    assert planted_rows([*train[:20], *planted], heldout) == frozenset()
    assert planted_rows([*train, *planted[:8]], heldout[:8]) == frozenset()


def test_answers_that_are_one_text_are_told(english_text):
    own = [row.text for row in texts(english_text, 0, 80)]
    one = [f"Thank you for asking question {n}. I am sorry, I cannot help." for n in range(40)]
    assert alike_answers(answered(one), answered(own[40:])) == 1.0
    assert alike_answers(answered([*one[:20], *own[:20]]), answered(own[40:])) == 0.5
    assert alike_answers(answered(own[:40]), answered(own[40:])) == pytest.approx(1 / 40)
    labels = ["yes", "no"] * 20
    assert alike_answers(answered(labels), answered(labels)) == 0
    assert alike_answers(texts(english_text, 0, 40), texts(english_text, 40, 40)) is None
