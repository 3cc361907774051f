"""The index on disk finds what a slow search over all pairs finds, in English and Chinese."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from english import words
from heldout.core.characters import token_bytes, token_texts
from heldout.core.segments import folded
from heldout.data import index as index_module
from heldout.data import sketch
from heldout.data.build_index import build_index
from heldout.data.index import IndexedRow
from heldout.data.pairs import Here, neighbors
from heldout.data.shingles import (
    SPAN,
    fingerprints,
    place_of,
    slices,
    token_codes,
)

WORDS = [word for word in words() if any(character.isalnum() for character in word)]


def indexed(folder, train, heldout=(), tests=(), threshold=0.5):
    rows = [
        IndexedRow(part, number, f"{part} line {number + 1}", f"row-{number}", text)
        for part, texts in enumerate((train, heldout, tests))
        for number, text in enumerate(texts)
    ]
    return build_index(rows, folder, threshold=threshold, engine=Here())


def passages(num, num_words, first=0):
    return [
        WORDS[start : start + num_words]
        for start in range(first, first + num * num_words, num_words)
    ]


def longest_common_run(a, b):
    """The reference: length of the longest run of equal words, by dynamic programming."""
    best, last = 0, [0] * (len(b) + 1)
    for x in a:
        now = [0] * (len(b) + 1)
        for place, y in enumerate(b, 1):
            if x == y:
                now[place] = last[place - 1] + 1
                best = max(best, now[place])
        last = now
    return best


def tokens_of(words):
    return ["".join(filter(str.isalnum, word.lower())) for word in words]


# Codes


@given(st.lists(st.text(max_size=40), max_size=12))
@settings(deadline=None)
def test_codes_are_equal_where_tokens_are(texts):
    plain = token_texts([folded(text) for text in texts])
    tokens = [text.split(" ") if text else [] for text in plain]
    codes = token_codes(token_bytes([folded(text) for text in texts]))
    assert codes.lengths_R.tolist() == [len(each) for each in tokens]
    flat = [token for each in tokens for token in each]
    code_of = dict(zip(flat, codes.codes_T.tolist(), strict=True))
    assert [code_of[token] for token in flat] == codes.codes_T.tolist()
    assert len(set(code_of.values())) == len(code_of)


def test_codes_do_not_depend_on_the_other_texts():
    texts = ("zero", "", "你好世界你好", "One  two THREE")
    alone = token_codes([b"one two three"])
    among = token_codes(token_bytes([folded(text) for text in texts]))
    assert among.of(3).tolist() == alone.of(0).tolist()
    assert len(among.of(2)) == 6


@given(st.integers(0, 2**32 - 1), st.integers(50, 90), st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=60)
def test_a_span_of_fifty_tokens_shares_a_fingerprint(seed, length, before, after):
    rng = random.Random(seed)
    span = [str(rng.randrange(10**9)) for _ in range(length)]

    def around(num):
        return [str(rng.randrange(10**9)) for _ in range(num)]

    texts = [" ".join([*around(before), *span, *around(after)]), " ".join([*around(after), *span])]
    kept = fingerprints(token_codes(token_bytes(texts)))
    hashes = [set(kept.hashes_N[kept.texts_N == text].tolist()) for text in (0, 1)]
    assert hashes[0] & hashes[1]


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 50))
def test_slices_cover_all_in_order(sizes, most):
    runs = list(slices(sizes, most))
    assert list(itertools.chain(*(range(a, b) for a, b in runs))) == list(range(len(sizes)))
    assert all(sum(sizes[a:b]) <= most or b - a == 1 for a, b in runs)


def test_neighbors_are_all_pairs_of_equal_keys():
    keys = np.array([1, 1, 1, 4, 5, 5, 9])
    found = {(int(a), int(b)) for at, after in neighbors(keys, 40) for a, b in zip(at, after)}  # noqa: B905
    assert found == {(0, 1), (0, 2), (1, 2), (4, 5)}


def test_places_after_an_ellipsis_are_right():
    """Three points are one character that folding makes three of."""
    text = "开头的话……说到这里，他停了下来……然后继续。"
    for part in ("开头的话", "说到这里", "他停了下来", "然后继续"):
        before = sum(character.isalpha() for character in text[: text.index(part)])
        start, stop = place_of(text, before, before + len(part))
        assert text[start:stop] == part


def test_place_of_tokens_in_text():
    text = "  one  two\nthree four "
    start, stop = place_of(text, 1, 3)
    assert text[start:stop] == "two\nthree"
    start, stop = place_of("你好 世界，再见", 2, 4)
    assert "你好 世界，再见"[start:stop] == "世界"


# Index


@pytest.mark.parametrize("batch", [500, 10**6])
def test_spans_are_those_of_the_slow_search(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(index_module, "BATCH_CHARACTERS", batch)
    monkeypatch.setattr(sketch, "BATCH_TOKENS", batch)
    rng = random.Random(0)
    texts = passages(40, 120)
    for number in range(20, 40):
        # 44 to 63 words of another text in the middle: half of them long enough.
        length, source = 24 + number, texts[number - 20]
        at = rng.randrange(120 - length)
        place = rng.randrange(120 - length)
        texts[number][place : place + length] = source[at : at + length]
    index = indexed(tmp_path, [" ".join(words) for words in texts])
    near = {(a, b) for a, b, _ in index.near}
    expected = {
        (a, b): run
        for a, b in itertools.combinations(range(40), 2)
        if (run := longest_common_run(tokens_of(texts[a]), tokens_of(texts[b]))) >= SPAN
        and (a, b) not in near
    }
    assert len(expected) >= 10
    assert {(s.text_a, s.text_b): s.length for s in index.spans} == expected
    for span in index.spans:
        run_a = texts[span.text_a][span.start_a : span.start_a + span.length]
        run_b = texts[span.text_b][span.start_b : span.start_b + span.length]
        assert tokens_of(run_a) == tokens_of(run_b)


def test_a_short_row_that_stands_whole_in_training(tmp_path):
    train = [" ".join(words) for words in passages(20, 100)]
    short = [" ".join(WORDS[230:250]), " ".join(WORDS[230:240]), " ".join(WORDS[5000:5020])]
    index = indexed(tmp_path, train, short, tests=[" ".join(WORDS[310:340])])
    found = {(s.text_a, s.text_b): s.length for s in index.spans}
    assert found == {(2, 20): 20, (3, 23): 30}


def test_boilerplate_is_told_apart(tmp_path):
    frame = " ".join(WORDS[:70])
    bodies = passages(40, 100, 1000)
    train = [f"{frame} {' '.join(b)}" if n < 12 else " ".join(b) for n, b in enumerate(bodies)]
    copied = " ".join(bodies[30][20:75])
    heldout = [f"{' '.join(WORDS[9000:9100])} {frame}", f"{copied} {' '.join(WORDS[9200:9300])}"]
    index = indexed(tmp_path, train, heldout)
    leaks = [span for span in index.spans if span.text_b >= 40]
    assert [(s.text_a, s.text_b, s.length) for s in leaks] == [(30, 41, 55)]
    framed = [span for span in index.spans if max(span.text_a, span.text_b) < 12]
    assert framed == []
    assert index.boilerplate[0].num_texts == 13
    first = index.boilerplate[0]
    assert first.text == 0
    assert first.start <= 25
    assert first.start + first.length >= 45


def test_copies_do_not_make_boilerplate(tmp_path):
    """A text repeated twenty times still leaks: only different rows count."""
    body = " ".join(WORDS[:120])
    train = [body] * 20 + [" ".join(words) for words in passages(20, 100, 1000)]
    heldout = [" ".join(WORDS[20:80] + WORDS[7000:7150])]
    index = indexed(tmp_path, train, heldout)
    assert [(s.text_a, s.text_b) for s in index.spans] == [(0, 40)]
    assert index.boilerplate == []


def test_chinese_rows(tmp_path):
    rng = random.Random(1)
    characters = [chr(code) for code in range(0x4E00, 0x5200)]
    texts = ["".join(rng.choices(characters, k=160)) for _ in range(10)]
    edited = list(texts[1])
    for place in rng.sample(range(160), 6):
        edited[place] = "之"
    partial = texts[3][20:75] + "".join(rng.choices(characters, k=150))
    index = indexed(tmp_path, texts, [texts[0], "".join(edited), partial])
    assert index.first_R[10] == 0
    assert [(a, b) for a, b, _ in index.near] == [(1, 11)]
    assert [(s.text_a, s.text_b, s.length) for s in index.spans] == [(3, 12, 55)]


def test_test_sets_are_not_compared_with_held_out_rows(tmp_path):
    body = " ".join(WORDS[:120])
    index = indexed(tmp_path, ["nothing of the kind " * 9], [body], [body + " indeed"])
    assert index.near == []
    assert index.spans == []


def test_texts_and_places_come_back(tmp_path):
    texts = ["one", "", "ünï\u2028 ", "你好"]
    index = indexed(tmp_path, texts)
    assert [index.text(n) for n in range(4)] == texts
    assert index.where(2) == "0 line 3"
    assert index.group(3) == "row-3"
