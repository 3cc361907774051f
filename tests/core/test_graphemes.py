"""Characters as readers count them, in every script."""

import pytest

from heldout.core.graphemes import boundary_before, is_boundary, num_graphemes, num_letters

CLUSTERS = {
    "豆腐": ["豆", "腐"],
    "का": ["का"],  # a consonant with its vowel sign
    "น้ำ": ["น้ำ"],  # with a tone mark
    "e\u0301t\u00e9": ["e\u0301", "t", "\u00e9"],
    "각": ["각"],
    "👨‍👩‍👧a": ["👨‍👩‍👧", "a"],
    "🇩🇪🇫🇷": ["🇩🇪", "🇫🇷"],
    "a\r\nb": ["a", "\r\n", "b"],
    "": [],
}


@pytest.mark.parametrize("text", CLUSTERS)
def test_boundaries_lie_between_clusters_alone(text):
    clusters, starts = CLUSTERS[text], [0]
    for cluster in clusters:
        starts.append(starts[-1] + len(cluster))
    assert [at for at in range(len(text) + 1) if is_boundary(text, at)] == sorted({*starts})
    assert num_graphemes(text) == len(clusters)


def test_far_into_a_text_as_at_its_beginning():
    text = "नमस्ते " * 40
    near = [at for at in range(len("नमस्ते ") + 1) if is_boundary("नमस्ते ", at)]
    offset = len(text) // 2 // len("नमस्ते ") * len("नमस्ते ")
    assert [at for at in near if is_boundary(text, offset + at)] == near
    assert not is_boundary(text, offset + 3)


def test_the_boundary_before_a_place(text_in_a_script):
    for place in range(len(text_in_a_script) + 3):
        found = boundary_before(text_in_a_script, place)
        assert found <= place
        assert is_boundary(text_in_a_script, found)
        assert not any(is_boundary(text_in_a_script, at) for at in range(found + 1, place + 1)) or (
            place > len(text_in_a_script)
        )


def test_letters_weigh_scripts_by_what_they_say():
    assert num_letters("tofu") == 4
    assert num_letters("豆腐") == num_letters("두부") == num_letters("とう") == 6
    assert num_letters("น้ำ") == 2  # without the tone mark
    assert num_letters("，。") == 2  # punctuation is no letter more
