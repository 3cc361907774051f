"""Quoted rows say in which language they are, so that browsers choose the right forms."""

import pytest

from heldout.report.quoted import clipped, is_spaceless, language_attribute, language_tag

TAGS = {
    "simplified Chinese": "zh-Hans",
    "traditional Chinese": "zh-Hant",
    "Japanese": "ja",
    "Korean": "ko",
    "Thai": "th",
    "Hindi": "und-Deva",
    "Arabic": "und-Arab",
    "English": "",
}


def test_the_script_tells(text_in_a_script, request):
    name = request.node.callspec.params["text_in_a_script"]
    assert language_tag(text_in_a_script) == TAGS[name]
    assert language_attribute(text_in_a_script) == f' lang="{TAGS[name]}"'
    assert is_spaceless(text_in_a_script) == (TAGS[name][:2] in ("zh", "ja", "th"))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("", ""),
        ("1234 -- ...", ""),
        ("He calls it 道, the way of all things that are.", ""),  # a quotation
        ("用 attach(trainer) 加上正则化，然后 trainer.train()。", "zh-Hans"),
        ("東京タワー", "ja"),
        ("大韓民國의 수도는 서울이다", "ko"),
    ],
)
def test_mixed_and_short_texts(text, tag):
    assert language_tag(text) == tag


def test_a_clipped_text_ends_with_a_whole_character(text_in_a_script):
    text = text_in_a_script * 3
    for most in range(20, 40):
        shown = clipped(text, most)
        assert shown.endswith("…")
        assert len(shown) <= most + 1
        assert text.startswith(shown[:-1])
    assert clipped(text, len(text)) == text
    assert clipped("का" * 3, 3) == "का…"
