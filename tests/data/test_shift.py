import random

from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.data.shift import word_shift


def rows(entries, prefix=""):
    return [
        Row(i, ({"role": "text", "content": e["completion"]},), prefix + e["group"])
        for i, e in enumerate(entries)
    ]


def factbook(fields):
    found = question_answer_rows(20, 1, 20, 1, fields=fields)
    return rows(found["train"]), rows(found["test"])


CLIMATE, EXPORTS = ("Geography", "Climate"), ("Economy", "Exports - commodities")


def test_groups_of_one_text_lie_no_further_apart_than_chance():
    train, heldout = factbook([CLIMATE])
    shift = word_shift(train, heldout)
    assert shift.p_value > 0.05
    assert abs(shift.beyond_chance) < 0.05


def test_texts_of_two_kinds_are_told_apart():
    shift = word_shift(factbook([CLIMATE])[0], factbook([EXPORTS])[1])
    assert shift.p_value <= 1 / 200
    assert shift.beyond_chance > 0.2


def test_nothing_in_common_is_one_bit_and_the_same_text_none():
    first = [Row(i, ({"role": "text", "content": "alpha beta"},), f"a{i}") for i in range(8)]
    second = [Row(i, ({"role": "text", "content": "gamma delta"},), f"b{i}") for i in range(8)]
    assert abs(word_shift(first, second).divergence - 1) < 1e-12
    assert abs(word_shift(first, first).divergence) < 1e-12


def test_a_change_of_subject_is_told_in_chinese():
    common = "的一是在不了有和人这"
    subjects = ("鱼海船港网浪岸渔鳞潮", "铁火炉钢煤矿锤铸熔渣")
    rng = random.Random(0)

    def some(subject, name):
        texts = ("".join(rng.choices(common + subject, k=40)) + "，" for _ in range(60))
        return [
            Row(i, ({"role": "text", "content": t},), f"{name}{i}") for i, t in enumerate(texts)
        ]

    shift = word_shift(some(subjects[0], "a"), some(subjects[1], "b"))
    assert shift.beyond_chance > 0.3
    assert shift.p_value <= 1 / 200
    same = word_shift(some(subjects[0], "a"), some(subjects[0], "b"))
    assert abs(same.beyond_chance) < 0.02


def test_too_few_groups_tell_nothing():
    train, heldout = factbook([CLIMATE])
    assert word_shift(train[:7], heldout) is None
