"""Planted duplicates in real text, checked against a slow search over all pairs."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from english import words
from heldout.core.characters import letters as letters_of
from heldout.core.row import Row
from heldout.data.duplicates import Duplicate, find_duplicates
from heldout.data.pairs import Components
from heldout.data.pieces import letter_pieces, without_marks

WORDS = words()

CHINESE = (
    "在训练语言模型时，如果数据很少，模型往往会把训练样本背下来，而不是学会其中的规律。"
    "为了知道模型是否真正学到了东西，我们把一部分文档留出来，直到最后才打开。"
    "如果留出的文档与训练文档重复，测量的结果就不可信，因此必须先找出相同和相近的文本。"
)


def rows_of(texts):
    return [
        Row(index, ({"role": "text", "content": text},), f"row-{index}")
        for index, text in enumerate(texts)
    ]


def passages(num, num_words, first=0):
    """Passages of running text that do not overlap."""
    return [
        WORDS[start : start + num_words]
        for start in range(first, first + num * num_words, num_words)
    ]


def edited(words, share, rng):
    words = list(words)
    for position in rng.sample(range(len(words)), round(share * len(words))):
        words[position] = rng.choice(WORDS)
    return words


def pieces(text):
    """The definition, without any hashing but that which keeps half of the pieces."""
    points_T, _, _ = letters_of([without_marks(text)])
    letters = "".join(map(chr, points_T))
    hashes = letter_pieces(points_T).tolist()
    return {letters[place : place + 8] for place, each in enumerate(hashes) if each % 2 == 0}


def slow_jaccard(a, b):
    return len(a & b) / len(a | b)


def connected(rows, pairs):
    components = Components(len(rows))
    for pair in pairs:
        components.join(pair.row_a, pair.row_b)
    return components.label


# Exact


def test_exact_is_up_to_case_white_space_and_compatible_characters():
    texts = ["The ﬁrst  Ｆile\n", "other", "the first file", "THE FIRST\tFILE", "the first files"]
    assert find_duplicates(rows_of(texts)) == [
        Duplicate(0, 2, "exact", 1.0),
        Duplicate(0, 3, "exact", 1.0),
    ]


def test_a_short_text_has_only_exact_duplicates():
    texts = ["one two three four", "one two three five", "one two three four"]
    assert find_duplicates(rows_of(texts), 0.01) == [Duplicate(0, 2, "exact", 1.0)]


def test_prompts_and_answers_count_together():
    prompt = " ".join(WORDS[:8])
    answers = [" ".join(words) for words in passages(2, 40, 100)]
    rows = [
        Row(
            i, ({"role": "prompt", "content": prompt}, {"role": "completion", "content": a}), f"{i}"
        )
        for i, a in enumerate([*answers, answers[0]])
    ]
    assert find_duplicates(rows) == [Duplicate(0, 2, "exact", 1.0)]


# Near


@pytest.mark.parametrize("num_words", [60, 150])
@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8])
def test_all_pairs_at_the_threshold_are_found_and_no_others(num_words, threshold):
    rng = random.Random(0)
    originals = passages(100, num_words)
    copies = [edited(words, rng.choice([0.02, 0.05, 0.08]), rng) for words in originals]
    texts = [" ".join(words) for words in originals + copies]
    found = find_duplicates(rows_of(texts), threshold)
    sets = [pieces(text) for text in texts]
    expected = {
        (a, b): similarity
        for a, b in itertools.combinations(range(len(texts)), 2)
        if (similarity := slow_jaccard(sets[a], sets[b])) >= threshold and similarity < 1
    }
    assert len(expected) > 20
    near = {(pair.row_a, pair.row_b): pair.similarity for pair in found if pair.kind == "near"}
    assert near.keys() == expected.keys()
    assert near == pytest.approx(expected)


def test_the_first_of_equal_rows_stands_for_them_in_near_pairs():
    row, copy = WORDS[:60], edited(WORDS[:60], 0.03, random.Random(0))
    texts = [" ".join(words) for words in (row, copy, row, copy)]
    found = [(pair.row_a, pair.row_b, pair.kind) for pair in find_duplicates(rows_of(texts))]
    assert found == [(0, 1, "near"), (0, 2, "exact"), (1, 3, "exact")]


def test_five_percent_of_edits_in_long_rows_at_the_default_and_in_short_rows_at_half():
    rng = random.Random(1)
    for num_words, threshold in ((400, 0.6), (60, 0.5)):
        originals = passages(60, num_words)
        texts = [" ".join(w) for w in originals + [edited(w, 0.05, rng) for w in originals]]
        found = {(p.row_a, p.row_b) for p in find_duplicates(rows_of(texts), threshold)}
        assert sum((n, n + 60) in found for n in range(60)) >= 58


def test_chinese_is_compared_by_characters():
    other = (
        "天气预报说明天有雨，请大家出门时带好雨伞，注意安全，晚上早点回家休息，不要在外面停留太久。"
    )
    changed = CHINESE.replace("很少", "不多").replace("最后", "结束")
    texts = [CHINESE, other, changed, other.replace("，", " ， ")]
    (exact_or_near, near) = sorted(
        find_duplicates(rows_of(texts)), key=lambda pair: pair.row_a, reverse=True
    )
    assert (near.row_a, near.row_b, near.kind) == (0, 2, "near")
    assert 0.6 <= near.similarity < 1
    assert (exact_or_near.row_a, exact_or_near.row_b) == (1, 3)


def test_short_chinese_texts_differ():
    assert find_duplicates(rows_of(["你好吗", "你好呀", "你好吗"])) == [
        Duplicate(0, 2, "exact", 1.0)
    ]


def test_a_frame_around_every_row_is_no_duplicate():
    frame = " ".join(WORDS[:60])
    bodies = [" ".join(words) for words in passages(60, 15, 100)]
    texts = [f"{frame} {body}" for body in bodies]
    assert slow_jaccard(pieces(texts[0]), pieces(texts[1])) > 0.6
    assert find_duplicates(rows_of(texts)) == []
    again = [*texts, f"{frame} {bodies[7]} indeed"]
    assert [(p.row_a, p.row_b) for p in find_duplicates(rows_of(again))] == [(7, 60)]


def test_rows_that_are_all_frame_are_compared_whole():
    frame = " ".join(WORDS[:60])
    texts = [f"{frame} {' '.join(words)}" for words in passages(60, 15, 100)]
    texts += [frame, " ".join(WORDS[:59])]
    assert [(p.row_a, p.row_b) for p in find_duplicates(rows_of(texts))] == [(60, 61)]


def test_large_clusters_stay_connected_with_fewer_pairs():
    rng = random.Random(2)
    base = WORDS[:300]
    copies = [" ".join(edited(base, 0.01, rng)) for _ in range(150)]
    others = [" ".join(words) for words in passages(200, 60, 1000)]
    texts = copies + others
    pairs = find_duplicates(rows_of(texts))
    label = connected(texts, pairs)
    assert len(set(label[:150])) == 1
    assert len(set(label[150:])) == 200
    assert 149 <= len(pairs) < 150 * 149 / 4


def test_clusters_do_not_depend_on_the_order_of_rows():
    rng = random.Random(3)
    originals = passages(80, 60)
    texts = [" ".join(w) for w in originals + [edited(w, 0.06, rng) for w in originals]]
    order = list(range(len(texts)))
    rng.shuffle(order)
    pairs = {(p.row_a, p.row_b) for p in find_duplicates(rows_of(texts))}
    shuffled = find_duplicates(rows_of([texts[i] for i in order]))
    assert {tuple(sorted((order[p.row_a], order[p.row_b]))) for p in shuffled} == pairs


def test_no_rows():
    assert find_duplicates([]) == []
    assert find_duplicates(rows_of(["only one row that is long enough"])) == []


# Components


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
@settings(deadline=None)
def test_components_are_the_connected_sets(joins):
    components = Components(20)
    slow = [{n} for n in range(20)]
    for a, b in joins:
        components.join(a, b)
        union = slow[a] | slow[b]
        for member in union:
            slow[member] = union
    for a, b in itertools.combinations(range(20), 2):
        assert (components.label[a] == components.label[b]) == (b in slow[a])
    for n in range(20):
        assert components.size_of(int(components.label[n])) == len(slow[n])
