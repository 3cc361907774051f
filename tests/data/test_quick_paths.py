"""What is done in bulk, or passed by at once, gives what one step after the other gives."""

import random
import re

import numpy as np
import pytest

from heldout.core.segments import folded
from heldout.data.quality import _faults, _personal, examine_all
from heldout.data.shingles import place_of, slices

WORDS = ("a", "Bc", "--", "(", "9", "'s", "\\u4f60\\u597d", "a@b.org", "x`", "1:2:3", "<s>", "é")
GAPS = (" ", " ", " ", "  ", "\n", "\t", "\x1c", "")


def some_text(rng: random.Random, *, ascii_only: bool) -> str:
    words = [word for word in WORDS if word.isascii() or not ascii_only]
    return "".join(rng.choice(words) + rng.choice(GAPS) for _ in range(rng.randrange(12)))


@pytest.mark.parametrize("seed", range(100))
def test_folding_of_ascii(seed):
    text = some_text(random.Random(seed), ascii_only=True)
    assert folded(text) == " ".join(text.lower().split())


@pytest.mark.parametrize("seed", range(100))
def test_places_of_tokens(seed):
    rng = random.Random(seed)
    text = some_text(rng, ascii_only=True)
    items = [
        found for found in re.finditer(r"[^\t-\r ]+", text) if re.search("[A-Za-z0-9]", found[0])
    ]
    start = rng.randrange(4)
    stop = start + rng.randrange(1, 5)
    chosen = items[start:stop]
    expected = (chosen[0].start(), chosen[-1].end()) if chosen else (0, len(text))
    assert place_of(text, start, stop) == expected


def test_long_items_without_a_letter_are_passed_by_at_once():
    assert place_of("-" * 1_000_000 + " word", 0, 1) == (1_000_001, 1_000_005)


@pytest.mark.parametrize("seed", range(50))
def test_runs_of_sizes(seed):
    rng = random.Random(seed)
    sizes = [rng.choice((0, 1, 2, 5, 30)) for _ in range(rng.randrange(12))]
    found = list(slices(sizes, 10))
    assert [place for run in found for place in range(*run)] == list(range(len(sizes)))
    for start, stop in found:
        assert stop == start + 1 or sum(sizes[start:stop]) <= 10
        assert stop == len(sizes) or sum(sizes[start : stop + 1]) > 10  # the next has no room
    assert found == list(slices(np.array(sizes, dtype=np.int64), 10))


@pytest.mark.parametrize("seed", range(100))
def test_no_text_with_a_finding_is_passed_by(seed):
    rng = random.Random(seed)
    texts = [some_text(rng, ascii_only=False) for _ in range(5)]
    texts += [
        "a\x07b",
        "see ::1:2:3:4:5:6 2001:db8:1:1:1:1:1:1",
        "call 415-555-2671 now",
        "[/INST]",
    ]
    expected = [
        (place, found)
        for place, text in enumerate(texts)
        for found in [
            *_faults(text, True, True, True),
            *_personal(text, True, True, sum(c in "0123456789" for c in text)),
        ]
    ]
    assert list(examine_all(texts)) == expected
