"""The page of a check: what it says, that untrusted text stays text, and its JSON."""

import copy
import json
from importlib import resources

import made_up_check
import pytest
from jsonschema import Draft202012Validator, ValidationError
from page_text import read

from heldout.core.language import using
from heldout.core.results.check import CheckResult
from heldout.jobs.checking.check import check
from heldout.report.check_page import render_check


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
