"""The shipped JSON Schemas accept what the core writes, and refuse what it never would."""

import copy
import json
from importlib import resources

import made_up_run
import pytest
from jsonschema import Draft202012Validator, ValidationError

from heldout.core.measurement import NotMeasured


def validator(name: str) -> Draft202012Validator:
    path = resources.files("heldout.core") / "schemas" / f"{name}.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", ["verdict", "measurements", "result"])
def test_schema_accepts_a_run(run, name):
    entry = run.read_json(f"{name}.json")
    assert entry["schema"] == f"heldout.{name}/1"
    validator(name).validate(entry)


def test_measurements_accept_what_was_not_measured():
    entry = made_up_run.measurements([NotMeasured("x", "no data")])
    assert list(validator("measurements").iter_errors(entry)) == []
    assert "no data" in json.dumps(entry)


def _without(key):
    return lambda entry: entry.pop(key)


def _unknown_color(entry):
    entry["verdicts"]["fit"]["light"] = "blue"


def _five_verdicts(entry):
    del entry["verdicts"]["leakage"]


def _nothing_as_value(entry):
    entry["measurements"][0]["value"] = None


def _no_reason(entry):
    entry["measurements"][-1]["reason"] = ""


def _interval_without_level(entry):
    del entry["measurements"][0]["interval"]["level"]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("verdict", _without("schema")),
        ("verdict", _without("headline")),
        ("verdict", _unknown_color),
        ("verdict", _five_verdicts),
        ("measurements", _nothing_as_value),
        ("measurements", _no_reason),
        ("measurements", _interval_without_level),
        ("result", _without("best_step")),
        ("result", _without("stop_reason")),
    ],
)
def test_schema_refuses_what_is_wrong(run, name, spoil):
    entry = copy.deepcopy(run.read_json(f"{name}.json"))
    spoil(entry)
    with pytest.raises(ValidationError):
        validator(name).validate(entry)
