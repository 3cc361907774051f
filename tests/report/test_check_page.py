"""The page of a check: what it says, that untrusted text stays text, and its JSON."""

import copy
import json
from importlib import resources

import made_up_check
import pytest
from jsonschema import Draft202012Validator, ValidationError
from page_text import figures, read

from heldout.core.language import using
from heldout.core.results.check import CheckResult
from heldout.jobs.checking.check import check
from heldout.report.check_page import differences, render_check


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return made_up_check.made_up_check(tmp_path_factory.mktemp("check"))


def schema():
    path = resources.files("heldout.core") / "schemas" / "check.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_json_follows_the_schema_and_comes_back(result):
    entry = json.loads(json.dumps(result.to_json()))
    schema().validate(entry)
    assert CheckResult.from_json(entry) == result


@pytest.mark.parametrize("key", ["schema", "rows", "duplicates", "leaks"])
def test_schema_refuses_what_lacks_a_promised_field(result, key):
    entry = result.to_json()
    del entry[key]
    with pytest.raises(ValidationError):
        schema().validate(json.loads(json.dumps(entry)))


@pytest.mark.parametrize("key", ["train_row", "heldout_row", "kind", "text_train", "text_heldout"])
def test_a_leak_has_all_that_is_promised(result, key):
    entry = copy.deepcopy(json.loads(json.dumps(result.to_json())))
    assert entry["leaks"]
    del entry["leaks"][0][key]
    with pytest.raises(ValidationError):
        schema().validate(entry)


def test_the_page_says_what_was_found(result):
    text = " ".join(" ".join(read(render_check(result)).text).split())
    assert "4 of 44 held-out rows leak into training." in text
    for words in (
        "Leak map",
        "Nearly the same",
        "A long span in common",
        "Groups on both sides",
        "Boilerplate",
        "the last line is cut off",
        "1,200,000",
        "1 of 200 answers is in doubt",
        "+0.31 bits per token after its own prompt",
        "Is more data worth it?",
        "Yes: twice the data would lower the held-out loss",
    ):
        assert words in text, words
    assert "john" not in text.replace("mail john.doe@acme.org or call (212) 555-0147", "")


def test_untrusted_text_stays_text(result):
    page = render_check(result)
    assert made_up_check.HOSTILE not in page
    assert "<img src=x" not in page
    assert "&lt;/script&gt;" in page


def test_a_clean_check_says_so(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "only one row"}\n')
    text = " ".join(" ".join(read(render_check(check(path))).text).split())
    assert "No held-out rows were given, so nothing could leak." in text
    for absent in ("Duplicates", "Answers in doubt", "More data"):
        assert absent not in text


@pytest.mark.parametrize("name", ["label_noise", "learning_curve"])
def test_schema_refuses_half_of_what_was_asked_for(result, name):
    entry = json.loads(json.dumps(result.to_json()))
    del entry[name]["sentence"]
    with pytest.raises(ValidationError):
        schema().validate(entry)


def test_a_chinese_page_keeps_the_name_and_says_places_and_labels(result):
    with using("zh"):
        page = render_check(result)
    text = "".join(read(page).text)
    assert "heldout" in read(page).text
    assert "训练数据 · " in text
    assert "训练数据第" not in text


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [
        ("the old man and the sea", "the young man and the sea", ["old ", "young "]),
        ("one two three", "one three", ["two ", ""]),
        ("今天天气很好", "今天天气不好", ["很", "不"]),
        ("all the same", "all the same", ["", ""]),
    ],
)
def test_words_that_the_other_has_not_are_marked(first, second, marked):
    for text, pieces, differing in zip(
        (first, second), differences(first, second), marked, strict=True
    ):
        assert "".join(piece for piece, _ in pieces) == text
        assert "".join(piece for piece, mark in pieces if mark) == differing


def test_the_page_counts_rows_from_one_and_marks_what_near_pairs_differ_in(result):
    page = render_check(result)
    exact = next(m for m in figures(page)["charts"]["leak-map"]["marks"] if m["name"] == "Exact")
    assert exact["xs"][0] == 6
    assert exact["ys"][0] == 1
    assert 'class="differs">&lt;/script&gt;' in page


def test_the_page_says_which_kinds_of_faults_there_are_before_it_lists_them(result):
    page = render_check(result)
    faults = page[page.index('id="problems"') :]
    kinds = faults[: faults.index("<table>")]
    for kind, num in result.counts.items():
        if kind.startswith("problems_") and num:
            assert f"<li>{kind.removeprefix('problems_').replace('_', ' ')}: {num} row" in kinds
