"""What belongs together is found in every script as in English, and rules join nothing."""

import random

import pytest
from opencc import OpenCC

from heldout.core.characters import token_texts
from heldout.core.row import Row
from heldout.core.segments import folded
from heldout.data.duplicates import find_related
from heldout.data.shingles import place_of


def vocabulary(script, rng):
    """900 made-up words of a script, as long as its words are."""
    letters, sizes = {
        "Chinese": (SIMPLIFIED, (1, 2, 2, 2)),
        "Japanese": ("あいうえおかきくけこさしすせそたちつてとなにはをカキク日本語山", (1, 2, 3)),
        "Korean": ([chr(0xAC00 + 37 * n) for n in range(290)], (2, 3, 4)),
        "Thai": ("กขคงจชซดตทนบปพมยรลวสหอเแโไาิีุูัะ", (3, 4, 6)),
        "Hindi": ("कखगघचजटडतदनपबमयरलवसहािीुूेोंअआई", (3, 4, 6)),
        "Arabic": ("ابتثجحخدرزسشصضطعغفقكلمنهوي", (3, 4, 6)),
        "English": ("abcdefghijklmnopqrstuvwxyz", (2, 4, 5, 8)),
    }[script]  # fmt: skip
    return sorted({"".join(rng.choices(letters, k=rng.choice(sizes))) for _ in range(900)})


TRADITIONAL = OpenCC("s2t").convert
HAN = "".join(map(chr, range(0x4E00, 0x9FA0)))
SIMPLIFIED = [
    a for a, b in zip(HAN, TRADITIONAL("\n".join(HAN)).split("\n"), strict=True) if a != b
]
SIMPLIFIED = SIMPLIFIED[:400]
SCRIPTS = ("Chinese", "Japanese", "Korean", "Thai", "Hindi", "Arabic", "English")
APART = ("Korean", "Hindi", "Arabic", "English")


def made(script, num, num_words, seed=0):
    rng = random.Random(seed)
    words = vocabulary(script, rng)
    space = " " if script in APART else ""
    return [
        space.join(rng.choices(words, [1 / (n + 5) for n in range(len(words))], k=num_words))
        for _ in range(num)
    ]


def related(texts):
    rows = [Row(n, ({"role": "text", "content": t},), f"g{n}") for n, t in enumerate(texts)]
    return {(pair.row_a, pair.row_b) for pair in find_related(rows, 0.45)}


def pairs(num):
    return {(n, num + n) for n in range(num)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_row_inside_code_or_another_language_is_found(script):
    texts = made(script, 30, 45)
    shells = made("Thai" if script == "English" else "English", 30, 260, seed=1)
    assert related(
        [*texts, *(f"{s[:300]}\n{t}\n{s[300:]}" for s, t in zip(shells, texts, strict=True))]
    ) == pairs(30)


@pytest.mark.parametrize("script", SCRIPTS)
def test_rules_and_punctuation_are_no_words(script):
    texts = made(script, 24, 30)
    rules = [f"{'-' * 60}\n{t}\n{'= ' * 60}\n{'。！？…—'[n % 5] * 60}" for n, t in enumerate(texts)]
    assert related(rules) == set()
    bare = ["".join(c for c in t if c not in "，。") for t in texts]
    cut = ["，".join(t[at : at + 9] for at in range(0, len(t), 9)) + "。" for t in texts]
    assert related([*bare, *cut]) == pairs(24)
    unseen = ["".join(f"{c}\u200b" for c in t) for t in texts]
    assert related([*bare, *unseen]) == pairs(24)


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_word_in_twenty_replaced_hides_no_copy(script):
    rng = random.Random(1)
    words, space = vocabulary(script, random.Random(0)), " " if script in APART else ""
    cut = [rng.choices(words, k=60) for _ in range(30)]
    others = [[*s[:20], rng.choice(words), *s[21:50], rng.choice(words), *s[52:]] for s in cut]
    assert related([space.join(each) for each in (*cut, *others)]) == pairs(30)


def test_traditional_chinese_is_a_copy_of_simplified():
    texts = made("Chinese", 30, 20)
    others = [TRADITIONAL(text) for text in texts]
    assert all(sum(map(str.__ne__, a, b)) > 10 for a, b in zip(texts, others, strict=True))
    assert related([*texts, *others]) == pairs(30)


@pytest.mark.parametrize(
    "frame",
    [
        "请把下面这道应用题认真地做一遍，写出每一步的理由，最后的数字是{}",
        "次の文章題をていねいに解いて、その理由もすべて書いてください。数は{}",
        "다음 문제를 차근차근 풀고 이유를 모두 써 주세요. 마지막 숫자는 {}",
        "ช่วยทำโจทย์ข้อนี้แล้วเขียนเหตุผลทุกขั้นตอนให้ครบ ตัวเลขสุดท้ายคือ {}",
    ],
)
def test_short_questions_that_differ_in_numbers_alone_stay_apart(frame):
    assert related([frame.format(n) for n in range(9)]) == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_unrelated_rows_of_all_lengths_stay_apart(script):
    texts = [made(script, 1, 4 + n % 50, seed=n + 7)[0] for n in range(120)]
    assert related(list(dict.fromkeys(texts))) == set()


@pytest.mark.parametrize(
    "text", ["前面说……中间的话，Python3后面", "foo -- bar… 他说：好", "ก่อนที่ดี หลัง"]
)
def test_tokens_are_placed_in_the_text(text):
    tokens = token_texts([folded(text)])[0].split()
    for place, token in enumerate(tokens):
        start, stop = place_of(text, place, place + 1)
        assert token_texts([folded(text[start:stop])]) == [token]
