"""Task metrics in scripts with and without spaces."""

import pytest

from heldout.jobs.kit.metrics import exact_match, load_metric


@pytest.fixture(scope="module")
def rouge_l():
    pytest.importorskip("rouge_score")
    return load_metric("rouge_l")


@pytest.mark.parametrize(
    ("prediction", "reference", "most"),
    [
        ("一共有3个苹果在桌上", "一共有3只苹果在桌上", 9 / 10),
        ("他用Python写程序", "他用Python写代码", 4 / 6),
        ("𠮷野家在東京", "𠮷野家在大阪", 4 / 6),
        ("カレーが好き", "ラーメンが好き", None),
        ("나는 밥을 먹었다", "나는 빵을 먹었다", 2 / 3),
        ("वह घर गया", "वह घर आया", 2 / 3),
        ("เขามา", "เขาไป", 3 / 5),
        ("ذهب الولد", "ذهب الرجل", 1 / 2),
        ("he didn't go", "she didn't go", 2 / 3),
    ],
)
def test_rouge_counts_words_and_letters_of_scripts_without_spaces(
    rouge_l, prediction, reference, most
):
    found = rouge_l(prediction, reference)
    assert rouge_l(prediction, prediction) == 1
    assert 0 < found < 1
    if most is not None:
        assert found == pytest.approx(most)


def test_exact_match_folds_width_case_and_spaces():
    assert exact_match("用 Ｐython 写， 好", "用python写,好") == 1
    assert exact_match(" The\u00a0End\u200b ", "the end") == 1
    assert exact_match("한국 말", "한국말") == 0
    assert exact_match("ten", "two") == 0
