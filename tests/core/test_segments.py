"""Words, items, sentences and equal texts in seven scripts; known answers."""

import random

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from heldout.core import segments
from heldout.core.characters import letters, simplified, token_texts
from heldout.core.segments import (
    ITEM,
    LETTER,
    folded,
    is_written_apart,
    items,
    scripts,
    sentences,
    words,
)

SCRIPTS = {
    "Chinese": "他用Python3写代码，跑了25次。",
    "traditional Chinese": "他們學習漢語，𠮷野家。",
    "Japanese": "カレーを食べた、東京で。",
    "Korean": "우리는 서울에서 밥을 먹었다.",
    "Thai": "เรากินข้าวที่นี่",
    "Hindi": "हमने दिल्ली में खाना खाया।",
    "Arabic": "أكلنا الطَّعام في المدينة.",
    "English": "We didn't eat 25 cafés’ food.",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SCRIPTS["Chinese"], [*"他用", "Python3", *"写代码跑了", "25", "次"]),
        (SCRIPTS["traditional Chinese"], [*"他們學習漢語𠮷野家"]),
        (SCRIPTS["Japanese"], [*"カレーを食べた東京で"]),
        (SCRIPTS["Korean"], ["우리는", "서울에서", "밥을", "먹었다"]),
        ("ที่นี่", ["ที่", "นี่"]),
        (SCRIPTS["Hindi"], ["हमने", "दिल्ली", "में", "खाना", "खाया"]),
        (SCRIPTS["Arabic"], ["أكلنا", "الطَّعام", "في", "المدينة"]),
        (SCRIPTS["English"], ["We", "didn't", "eat", "25", "cafés", "food"]),
        ("می\u200cروم 〇々 ﾊﾟ", ["می\u200cروم", *"〇々ﾊﾟ"]),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_items_are_words_with_their_punctuation(text):
    found = items(text)
    assert "".join(found) == text
    plain = [words("".join(found[number])) for number in range(1, len(found), 2)]
    assert [word for some in plain for word in some] == words(text)
    assert not any(gap.strip() for gap in found[::2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("真的！！！我不信。", ["真的！！！", "我不信。"]),
        ("下雨了。 他没来。　走吧", ["下雨了。", "他没来。", "走吧"]),
        ("你好!还好吗?是的", ["你好!", "还好吗?", "是的"]),
        ("他走了……天黑了。", ["他走了……", "天黑了。"]),
        ("他说：“走吧。”\n“好！”\n", ["他说：“走吧。”", "“好！”\n"]),
        ("“走吧！天黑了。”他说。“好。”她说。", ["“走吧！天黑了。”他说。", "“好。”她说。"]),
        ("「走吧。」「好。」", ["「走吧。」", "「好。」"]),
        ("真的吗？，他问。", ["真的吗？，他问。"]),
        ("「行こう。」と彼は言った。雨だ！", ["「行こう。」と彼は言った。", "雨だ！"]),
        ("그는 갔다. 정말? 네.", ["그는 갔다.", "정말?", "네."]),
        ("वह गया। तुम आए? हाँ।", ["वह गया।", "तुम आए?", "हाँ।"]),
        ("ذهب إلى البيت. هل جاء؟ نعم.", ["ذهب إلى البيت.", "هل جاء؟", "نعم."]),
        ("พ.ศ. 2560 เขามา\nเราไป", ["พ.ศ. 2560 เขามา", "เราไป"]),
        ('"Go. Now." He left. (Why? Who knows.) So be it.', None),
        ("Well… He left. Он ушёл. А. П. Чехов пишет.", None),
        ("第3.5节讲完了。下一节", ["第3.5节讲完了。", "下一节"]),
    ],
)
def test_sentences(text, expected):
    parts = sentences(text)
    assert "".join(parts) == text
    if expected is None:
        expected = {
            '"': ['"Go. Now."', "He left.", "(Why? Who knows.)", "So be it."],
            "W": ["Well…", "He left.", "Он ушёл.", "А. П. Чехов пишет."],
        }[text[0]]
    assert parts[::2] == expected


@given(st.text(alphabet="aB .!?。！？…“”「」（）()\"'\n我กा한", max_size=60))
def test_parts_give_the_text_back(text):
    for parts in (sentences(text), items(text)):
        assert "".join(parts) == text
        assert len(parts) % 2


def test_sentences_of_a_text_full_of_open_quotes_take_no_time():
    assert len(sentences("“（「" * 20_000)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("用 Python 写", "用Python写"),
        ("你好， 世界。 好", "你好，世界。好"),
        ("ＡＢＣ１２３", "abc123"),
        ("零\u200b宽\ufeff", "零宽"),
        ("soft\u00adware  One", "software one"),
        ("カレー", "ｶﾚｰ"),
    ],
)
def test_folded_texts_are_equal(one, other):
    assert folded(one) == folded(other)


def test_what_folding_keeps_apart():
    assert folded("한국 말") != folded("한국말")
    assert folded("दिल्ली में 你") == "दिल्ली में你"
    assert folded("a b") != folded("ab")
    assert folded("a+b") != folded("a-b")


def test_tokens_have_no_marks_and_one_script_of_chinese():
    texts = ["他們 ---- 學習，Python3！", "a--b _c_ — don't", "", "ก็ดี", "مَدْرَسَة ـ", "é\u2028è"]
    assert token_texts([folded(text) for text in texts]) == [
        "他 们 学 习 python3",
        "ab c dont",
        "",
        "ก็ ดี",
        "مدرسة",
        "é è",
    ]


@given(st.lists(st.text(max_size=30) | st.sampled_from(list(SCRIPTS.values())), max_size=6))
def test_tokens_and_letters_do_not_depend_on_the_other_texts(texts):
    plain = [folded(text) for text in texts]
    assert token_texts(plain) == [token_texts([text])[0] for text in plain]
    points_T, alone_T, ends_R = letters(texts)
    alone = [letters([text]) for text in texts]
    assert points_T.tolist() == [int(p) for points, _, _ in alone for p in points]
    assert alone_T.tolist() == [bool(a) for _, own, _ in alone for a in own]
    assert np.diff(ends_R, prepend=0).tolist() == [len(points) for points, _, _ in alone]


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_tokens_are_the_items_with_letters(text):
    (tokens,) = token_texts([folded(text)])
    assert len(tokens.split()) == sum(bool(LETTER.search(item)) for item in ITEM.findall(text))


def test_quick_looks_miss_no_letter_and_nothing_invisible():
    every = "".join(map(chr, range(0x32400)))
    alone = set(segments.IS_ALONE.findall(every))
    assert len(alone) > 90_000
    assert alone <= set(segments._MAY_BE_ALONE.findall(every))
    unseen = set(regex.findall(r"\p{Default_Ignorable_Code_Point}", every))
    assert unseen <= set(segments._MAY_BE_INVISIBLE.findall(every))


def test_each_traditional_character_has_one_simplified_form():
    assert simplified("漢語與傳統，ASCII 后") == "汉语与传统，ASCII 后"
    assert len(simplified("𠮷" * 5)) == 5


def test_scripts_and_words_apart():
    assert scripts("Ａ 我 ก 한 3!") == {"LATIN", "CJK", "THAI", "HANGUL"}
    assert [is_written_apart(word) for word in ("café", "दिल्ली", "한국", "我", "カ", "ที่")] == [
        *(True, True, True),
        *(False, False, False),
    ]


def test_the_order_of_chinese_words_is_lost_in_items():
    text = "".join(random.Random(0).choices("天地玄黄宇宙洪荒日月盈昃", k=60)) + "。"
    found = items(text)
    assert len(found) // 2 == 61
