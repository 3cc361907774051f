"""Cuts at token boundaries that end with whole characters."""

import pytest

from heldout.core.graphemes import is_boundary
from heldout.core.row import Row
from heldout.lm.characters import decoded, token_size, whole_cut
from heldout.lm.measuring.generations import generations
from heldout.lm.measuring.memorization_prompt import memorization_prompt
from heldout.lm.special_tokens import content_ids
from heldout.lm.tokenize import prompt_ids


def row_of(text, index=0):
    return Row(index, ({"role": "text", "content": text},), f"row-{index}")


def ends_whole(part, text):
    """Whether ``part`` stands in the text, and no character is cut at its end."""
    at = text.find(part)
    return bool(part) and at >= 0 and is_boundary(text, at + len(part))


def test_every_cut_is_whole_and_the_nearest_before(tiny_tokenizer, text_in_a_script):
    ids = content_ids(tiny_tokenizer, text_in_a_script)
    whole = {
        place
        for place in range(1, len(ids) + 1)
        if ends_whole(tiny_tokenizer.decode(ids[:place]), text_in_a_script)
        and text_in_a_script.startswith(tiny_tokenizer.decode(ids[:place]))
    }
    for cut in range(1, len(ids) + 1):
        expected = max((place for place in whole if place <= cut), default=min(whole))
        assert whole_cut(tiny_tokenizer, ids, cut) == expected


def test_nothing_and_all_stay(tiny_tokenizer):
    ids = content_ids(tiny_tokenizer, "豆腐")
    assert [whole_cut(tiny_tokenizer, ids, cut) for cut in (0, len(ids), 99)] == [
        0,
        len(ids),
        len(ids),
    ]
    assert whole_cut(tiny_tokenizer, [], 4) == 0


@pytest.mark.parametrize("family", ["👨‍👩‍👧‍👦", "🇩🇪", "e\u0301"])
def test_clusters_of_several_code_points_stay_together(tiny_tokenizer, family):
    text = f"so {family} it is, {family} and so on"
    ids = content_ids(tiny_tokenizer, text)
    for cut in range(1, len(ids)):
        head = tiny_tokenizer.decode(ids[: whole_cut(tiny_tokenizer, ids, cut)])
        assert text.startswith(head)
        assert is_boundary(text, len(head))


def test_a_replacement_character_of_the_text_itself_is_a_character(tiny_tokenizer):
    text = "a\ufffdb\ufffdc and so on"
    ids = content_ids(tiny_tokenizer, text)
    heads = {tiny_tokenizer.decode(ids[: whole_cut(tiny_tokenizer, ids, k)]) for k in range(1, 9)}
    assert {"a\ufffd", "a\ufffdb"} <= heads


def test_decoded_ends_with_the_last_whole_character(tiny_tokenizer):
    ids = content_ids(tiny_tokenizer, "豆腐")
    assert len(ids) == 6
    assert [decoded(tiny_tokenizer, ids[:k]) for k in range(7)] == [
        "",
        "",
        "",
        "豆",
        "豆",
        "豆",
        "豆腐",
    ]


def test_prompts_and_what_follows_are_whole(tiny_tokenizer, text_in_a_script):
    row = row_of(text_in_a_script * 3)
    for ids, rest in (
        prompt_ids(row, tiny_tokenizer),
        *(memorization_prompt(row, tiny_tokenizer, 300, k) for k in range(4, 20)),
    ):
        head = tiny_tokenizer.decode(ids)
        assert ends_whole(head, row.text)
        assert ends_whole(rest, row.text)
        assert row.text.startswith(head + rest)


def test_generations_are_asked_for_and_compared_at_whole_characters(
    tiny_model_dir, tiny_tokenizer, text_in_a_script
):
    from heldout.lm.load import load_model

    loaded = load_model(str(tiny_model_dir), device="cpu")
    rows = [row_of(text_in_a_script[shift:] * 4, shift) for shift in range(6)]
    written = generations(
        loaded.model, tiny_tokenizer, rows, num_prompts=6, prompt_tokens=11, new_tokens=25
    )
    assert len(written) == 6
    for row, prompt, reference, text in zip(
        rows, written.prompts, written.references, written.texts, strict=True
    ):
        assert row.text.startswith(prompt + reference)
        assert ends_whole(prompt, row.text)
        assert ends_whole(prompt + reference, row.text)
        assert not text.endswith("\ufffd")


def test_the_size_of_tokens_is_that_of_the_rows(tiny_tokenizer):
    chinese = token_size(tiny_tokenizer, [row_of("卖豆腐的老人点上一盏小灯")] * 3)
    assert chinese.characters_per_token == pytest.approx(1 / 3)
    assert chinese.tokens(12) == 48  # 16 characters
    english = token_size(tiny_tokenizer, [row_of("An object of this type is the value of it.")])
    assert english.characters_per_token > 1.3
