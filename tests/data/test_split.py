"""Nothing straddles, the shares come out right, and small data is cross-validated."""

import dataclasses
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from english import words
from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.core.row import Row
from heldout.data.duplicates import find_duplicates
from heldout.data.split import Dropped, folds, split_rows

WORDS = words()
DATA = DataSection()


def passage(number):
    """Sixteen words of real text; with the number in each shingle it resembles no other passage."""
    words = WORDS[number * 16 : (number + 1) * 16]
    return " ".join(word for n in range(0, 16, 4) for word in [*words[n : n + 4], str(number)])


def rows_of(numbers, groups=None, first=0):
    """Rows whose texts are equal where the numbers are, and otherwise have nothing in common."""
    return [
        Row(
            index,
            ({"role": "text", "content": passage(first + number)},),
            groups[index] if groups else f"row-{index}",
        )
        for index, number in enumerate(numbers)
    ]


def grouped(sizes):
    """Rows in groups of the given sizes, all texts different."""
    groups = [f"book {n}" for n, size in enumerate(sizes) for _ in range(size)]
    return rows_of(range(len(groups)), groups)


def parts_of(split):
    return {"train": split.train, "validation": split.validation, "test": split.test}


def indices(rows):
    return [row.index for row in rows]


def error_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        split_rows(*arguments, **options)
    return str(caught.value)


# Sizes


def test_shares_of_independent_rows():
    split = split_rows(rows_of(range(400)), DATA)
    assert split.mode == "split"
    assert split.units == {"train": 280, "validation": 60, "test": 60}
    assert sorted(indices(split.train + split.validation + split.test)) == list(range(400))
    assert all(indices(part) == sorted(indices(part)) for part in parts_of(split).values())
    assert split.dropped == []
    assert (split.exact_duplicates, split.near_duplicates) == (0, 0)


def test_held_out_parts_have_thirty_components_while_half_of_all_is_enough():
    split = split_rows(rows_of(range(120)), DATA)
    assert split.units == {"train": 60, "validation": 30, "test": 30}
    split = split_rows(rows_of(range(119)), DATA)
    assert split.mode == "cross_validation"
    assert split.units == {"train": 119, "validation": 0, "test": 0}


def test_the_test_part_has_forty_where_seventy_are_left_to_train_on():
    """So many rule out that a tenth of the rows is recited where none is."""
    for num, units in (
        (139, {"train": 79, "validation": 30, "test": 30}),
        (140, {"train": 70, "validation": 30, "test": 40}),
    ):
        assert split_rows(rows_of(range(num)), DATA).units == units
        by_time = split_rows(rows_of(range(num)), DATA, dates=range(num))
        assert by_time.units == units


def test_a_large_share_that_was_asked_for_is_given():
    data = DataSection(validation_share=0.4, test_share=0.3)
    assert split_rows(rows_of(range(200)), data).units == {
        "train": 60,
        "validation": 80,
        "test": 60,
    }


def test_no_test_part():
    split = split_rows(rows_of(range(60)), DataSection(test_share=0))
    assert split.units == {"train": 30, "validation": 30, "test": 0}


def test_giant_groups_stay_in_train_and_shares_of_rows_come_out_right():
    split = split_rows(grouped([200, 150] + [1] * 650), DATA)
    assert {name: len(rows) for name, rows in parts_of(split).items()} == {
        "train": 700,
        "validation": 150,
        "test": 150,
    }
    assert {"book 0", "book 1"} <= {row.group for row in split.train}


def test_beside_a_giant_group_small_ones_are_left_for_train():
    split = split_rows(grouped([2000] + [1] * 120), DATA)
    assert split.units == {"train": 61, "validation": 30, "test": 30}


def test_a_part_filled_by_large_groups_gets_small_ones_too():
    rows = grouped([10] * 100 + [1] * 50)
    for seed in range(10):
        split = split_rows(rows, DataSection(seed=seed))
        assert split.mode == "split"
        assert min(split.units.values()) >= 30
        assert 0.35 < len(split.validation + split.test) / len(rows) < 0.55


def test_too_few_groups():
    rows = rows_of([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8])
    assert error_of(rows, DATA) == (
        "The data holds 9 independent groups in 11 rows (duplicates and rows of one group count "
        "once): a split needs at least 10. Add rows, or name files with data.validation and "
        "data.test."
    )
    assert split_rows(rows_of(range(10)), DATA).mode == "cross_validation"


def test_no_validation_share():
    assert error_of(rows_of(range(200)), DataSection(validation_share=0)) == (
        "data.validation_share must be above 0, got 0: without validation rows nothing tells when "
        "to stop. Or name a file with data.validation."
    )


# What belongs together


def test_duplicates_are_kept_together_and_counted():
    rows = rows_of([*range(200), *[3] * 20, *range(50, 80)])
    near = Row(250, ({"role": "text", "content": f"{passage(9)} indeed"},), "row-250")
    split = split_rows([*rows, near], DATA)
    assert split.exact_duplicates == 50
    assert split.near_duplicates == 1
    assert sum(split.units.values()) == 200
    for part in parts_of(split).values():
        there = set(indices(part))
        assert (9 in there) == (250 in there)
        assert (3 in there) == (205 in there)
        assert (50 in there) == (220 in there)


def test_groups_are_joined_through_duplicates_and_renamed():
    groups = [f"book {n // 2}" for n in range(400)]
    numbers = list(range(400))
    numbers[7] = 0  # a row of book 3 repeats a row of book 0
    split = split_rows(rows_of(numbers, groups), DATA)
    assert sum(split.units.values()) == 199
    part = next(part for part in parts_of(split).values() if 0 in indices(part))
    assert {row.index for row in part if row.group == "book 0"} == {0, 1, 6, 7}
    assert "book 3" not in {row.group for row in split.train + split.validation + split.test}


def texts_of(split):
    return {name: {row.text for row in part} for name, part in parts_of(split).items()}


def test_the_split_depends_on_seed_and_texts_not_on_the_order_of_rows():
    rows = rows_of([n % 230 for n in range(250)])
    split = split_rows(rows, DATA)
    assert split_rows(rows, DATA) == split
    shuffled = random.Random(0).sample(rows, len(rows))
    again = [
        dataclasses.replace(row, index=index, group=f"row-{index}")
        for index, row in enumerate(shuffled)
    ]
    assert texts_of(split_rows(again, DATA)) == texts_of(split)
    assert texts_of(split_rows(rows, DataSection(seed=1))) != texts_of(split)


def test_the_split_is_the_same_in_another_process():
    code = (
        "import sys\nsys.path.append('..')\nfrom test_split import *\n"
        "print(indices(split_rows(rows_of(range(150)), DATA).test))"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    assert fresh.stdout.strip() == str(indices(split_rows(rows_of(range(150)), DATA).test))


def test_max_rows_is_a_choice_by_seed():
    rows = rows_of(range(400))
    split = split_rows(rows, DataSection(max_rows=200))
    assert split.dropped == [Dropped("left out by data.max_rows", 200)]
    assert len(split.train + split.validation + split.test) == 200
    assert split_rows(rows, DataSection(max_rows=400)).dropped == []
    other = split_rows(rows, DataSection(max_rows=200, seed=1))
    assert {r.index for r in split.train} != {r.index for r in other.train}


@st.composite
def messy_data(draw):
    """Rows with groups of all sizes and duplicates across them."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 8, 40]), min_size=10, max_size=250))
    groups = [f"book {n}" for n, size in enumerate(sizes) for _ in range(size)]
    numbers = list(range(len(groups)))
    for a, b in draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6)):
        numbers[a * (len(numbers) // 10)] = numbers[b * (len(numbers) // 10)]
    return rows_of(numbers, groups)


@given(messy_data(), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_nothing_straddles_and_nothing_is_lost(rows, seed):
    data = DataSection(seed=seed)
    try:
        split = split_rows(rows, data)
    except UserError:  # so many were joined that too few are left
        return
    parts = parts_of(split)
    assert sorted(indices(split.train + split.validation + split.test)) == indices(rows)
    part_of = {row.index: name for name, part in parts.items() for row in part}
    for field in ("group", "text"):
        places = {(getattr(row, field), part_of[row.index]) for row in rows}
        assert max(Counter(value for value, _ in places).values()) == 1, field
    for pair in find_duplicates(rows):
        assert part_of[pair.row_a] == part_of[pair.row_b]
    assert split == split_rows(rows, data)
    if split.mode == "split":
        assert min(split.units.values()) >= 30
        num = sum(split.units.values())
        for part in (split.validation, split.test):
            share = max(0.15, 30 / num)
            largest = max(Counter(row.group for row in part).values())
            assert len(part) <= share * len(rows) + 30 * largest
    else:
        assert not split.validation + split.test


# Files for held-out parts


def test_given_parts_stay_and_train_loses_what_they_hold():
    test = rows_of([0, 1, 1, 2])
    validation = rows_of([2, 3, 4])
    train = rows_of([1, 3, 3, *range(5, 30)])
    split = split_rows(train, DATA, {"validation": validation, "test": test})
    assert split.mode == "split"
    assert [row.text for row in split.test] == [row.text for row in test]
    assert [row.text for row in split.validation] == [row.text for row in validation[1:]]
    assert [row.text for row in split.train] == [row.text for row in train[3:]]
    assert split.dropped == [
        Dropped("validation row that repeats, or shares a group with, a row of test", 1),
        Dropped("train row that repeats, or shares a group with, a row of test", 1),
        Dropped("train row that repeats, or shares a group with, a row of validation", 2),
    ]
    assert split.exact_duplicates == 1


def test_what_is_connected_to_the_test_part_through_other_rows_is_dropped():
    groups = ["a", "a", *(f"g{n}" for n in range(20))]
    train = rows_of([0, 1, *range(2, 22)], groups)
    split = split_rows(train, DATA, {"validation": rows_of([40]), "test": rows_of([1])})
    assert indices(split.train) == list(range(2, 22))


def test_names_that_files_give_by_themselves_do_not_join_parts():
    train, test = rows_of(range(20)), rows_of(range(4), first=50)
    split = split_rows(train, DATA, {"validation": rows_of(range(4), first=80), "test": test})
    assert split.units == {"train": 20, "validation": 4, "test": 4}
    assert split.dropped == []


def test_groups_that_the_user_names_join_parts():
    data = DataSection(group="book")
    train = rows_of(range(20), [f"book {n // 2}" for n in range(20)])
    test = rows_of(range(2), ["book 3", "row-1"], first=50)
    split = split_rows(train, data, {"validation": rows_of([90]), "test": test})
    assert indices(split.train) == [0, 1, 2, 3, 4, 5, *range(8, 20)]


def test_validation_is_split_off_where_only_the_test_part_is_given():
    test = rows_of([0, 300, 301])
    split = split_rows(rows_of(range(201)), DATA, {"test": test})
    assert split.units == {"train": 170, "validation": 30, "test": 3}
    few = split_rows(rows_of(range(40)), DATA, {"test": test})
    assert few.mode == "cross_validation"
    assert few.units == {"train": 39, "validation": 0, "test": 3}


def test_a_test_part_is_split_off_where_only_validation_is_given():
    validation = rows_of([300, 301])
    split = split_rows(rows_of(range(100)), DATA, {"validation": validation})
    assert split.units == {"train": 70, "validation": 2, "test": 30}
    few = split_rows(rows_of(range(40)), DATA, {"validation": validation})
    assert few.mode == "split"
    assert few.units == {"train": 40, "validation": 2, "test": 0}


def test_nothing_left_to_train_on():
    rows = rows_of(range(20))
    given_parts = {"validation": rows_of([50]), "test": rows}
    assert error_of(rows, DATA, given_parts) == (
        "All 20 train rows that were left repeat, or share a group with, rows of test: give other "
        "rows for one of the two."
    )


# Folds


def test_folds_keep_components_whole_and_are_even():
    rows = split_rows(grouped([20, 1, 1, 5, 5] + [2] * 30), DATA).train
    rounds = folds(rows, 5)
    assert [len(fold.held_out) for fold in rounds] == [20, 18, 18, 18, 18]
    assert sorted(index for fold in rounds for index in indices(fold.held_out)) == indices(rows)
    for fold in rounds:
        assert not {row.group for row in fold.train} & {row.group for row in fold.held_out}
        assert len(fold.train) + len(fold.held_out) == len(rows)
    assert folds(rows, 5) == rounds
    assert folds(rows, 5, seed=1) != rounds


def test_more_folds_than_groups():
    with pytest.raises(UserError) as caught:
        folds(rows_of(range(3)), 5)
    assert str(caught.value) == (
        "eval.folds must be at most the number of independent groups (3), got 5."
    )


# Order in time


def dated(num):
    """Rows of one day each, in an order of their own."""
    days = random.Random(0).sample(range(num), num)
    return rows_of(range(num)), [86400.0 * (19000 + day) for day in days]


def test_train_before_validation_before_test():
    rows, dates = dated(300)
    split = split_rows(rows, DATA, dates=dates)
    assert split.units == {"train": 210, "validation": 45, "test": 45}
    when = {name: [dates[i] for i in indices(part)] for name, part in parts_of(split).items()}
    assert max(when["train"]) < min(when["validation"])
    assert max(when["validation"]) < min(when["test"])
    (note,) = split.notes
    assert note.startswith("Split in time: train 2022-01-08 to 2022-08-05, validation 2022-08-06 ")


def test_a_group_takes_the_place_of_its_latest_row():
    rows, dates = dated(300)
    order = sorted(range(300), key=dates.__getitem__)
    old, new = order[3], order[-2]
    rows[old] = dataclasses.replace(rows[old], messages=rows[new].messages)
    split = split_rows(rows, DATA, dates=dates)
    assert {old, new} <= set(indices(split.test))
    assert split.notes[0].endswith("1 rows are older than rows of the part before.")


def test_too_few_groups_for_an_order_in_time():
    rows, dates = dated(60)
    split = split_rows(rows, DATA, dates=dates)
    assert split.mode == "cross_validation"
    assert "takes its folds from all dates" in split.notes[0]
