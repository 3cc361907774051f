"""The shipped JSON Schemas accept what the core writes, and refuse what it never would."""

import copy
import json
from importlib import resources
from pathlib import Path

import made_up_run
import pytest
from jsonschema import Draft202012Validator, ValidationError

from heldout.core.measurement import NotMeasured
from heldout.core.results.diagnosis import Diagnosis

EXAMPLES = Path(__file__).parents[2] / "examples"


def validator(name: str) -> Draft202012Validator:
    path = resources.files("heldout.core") / "schemas" / f"{name}.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(("name", "version"), [("verdict", 2), ("measurements", 1), ("result", 1)])
def test_schema_accepts_a_run(run, name, version):
    entry = run.read_json(f"{name}.json")
    assert entry["schema"] == f"heldout.{name}/{version}"
    validator(name).validate(entry)


def test_measurements_accept_what_was_not_measured():
    entry = made_up_run.measurements([NotMeasured("x", "no data")])
    assert list(validator("measurements").iter_errors(entry)) == []
    assert "no data" in json.dumps(entry)


def test_a_diagnosis_of_version_1_is_read_and_has_no_verdict_on_generation():
    entry = json.loads((EXAMPLES / "recital" / "reciter" / "diagnosis.json").read_text())
    assert entry["schema"] == "heldout.diagnosis/1"
    found = Diagnosis.from_json(entry)
    assert found.verdict.verdicts["memorization"].color == "red"
    assert found.verdict.verdicts["generation"].color == "unknown"
    assert "run heldout diagnose again" in found.verdict.verdicts["generation"].sentence
    again = found.to_json()
    assert (again["schema"], again["verdict"]["schema"]) == (
        "heldout.diagnosis/2",
        "heldout.verdict/2",
    )
    validator("diagnosis").validate(json.loads(json.dumps(again)))


def _without(key):
    return lambda entry: entry.pop(key)


def _unknown_color(entry):
    entry["verdicts"]["fit"]["light"] = "blue"


def _six_verdicts(entry):
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
        ("verdict", _six_verdicts),
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
