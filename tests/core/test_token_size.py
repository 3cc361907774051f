"""How many tokens hold what a number of English ones does."""

import pytest

from heldout.core.token_size import ENGLISH_TOKENS, TokenSize


@pytest.mark.parametrize("letters", [1.5, 2.7, 4.2, 9.0])
def test_lengths_stay_where_tokens_are_more_than_letters(letters):
    size = TokenSize(letters, letters)
    assert [size.tokens(num) for num in (6, 12, 50)] == [6, 12, 50]
    assert size.warning == ""


def test_small_tokens_hold_as_much_text_together():
    size = TokenSize.of(["豆" * 100], 280)  # 2.8 tokens a character
    for meant in (6, 12, 20, 50, 64):
        letters = size.tokens(meant) * size.letters_per_token
        assert letters == pytest.approx(4 * meant, rel=0.05)
    assert size.tokens(12) == 45  # 16 characters, and not 4
    assert "2.8 tokens a character" in size.warning
    assert "3.7 times" in size.warning


def test_a_tokenizer_of_the_script_is_left_alone():
    assert TokenSize.of(["豆腐" * 50], 100).tokens(12) == 12


def test_pieces_of_letters_are_told_as_such():
    assert "1.2 characters a token" in TokenSize.of(["tofu" * 30], 100).warning


def test_nothing_to_measure_is_taken_as_english():
    assert TokenSize.of([], 0) == TokenSize.of(["  ́"], 0) == ENGLISH_TOKENS
