"""Gates of heldout check: limits as shares and numbers, and JUnit."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from typer.testing import CliRunner

from heldout.cli.gates import Gate, parse_gate
from heldout.cli.main import command_line
from heldout.core.errors import UserError
from heldout.data.benchmarks import open_test_set


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("leak", Gate("leak")),
        ("leaks>1%", Gate("leak", 1.0, True)),
        ("duplicates > 20", Gate("duplicate", 20.0)),
        ("contamination>.5%", Gate("contamination", 0.5, True)),
    ],
)
def test_gates_are_read(text, gate):
    assert parse_gate(text) == gate


@pytest.mark.parametrize("text", ["leak>", "leak<1%", "leek", "leak>1%%", ""])
def test_other_words_are_refused(text):
    with pytest.raises(UserError, match="--fail-on must be one of leak, duplicate"):
        parse_gate(text)


@pytest.fixture
def files(tmp_path):
    """200 held-out rows, of which 3 stand in training."""
    texts = [" ".join(f"w{n}x{k}" for k in range(20)) for n in range(400)]
    paths = []
    for name, rows in (("train", texts[:203]), ("heldout", texts[200:400])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(("gate", "code"), [("leaks>1%", 1), ("leaks>2%", 0), ("leak>3", 0)])
def test_a_limit_decides_and_junit_tells(files, tmp_path, gate, code):
    train, heldout = files
    junit = tmp_path / "junit.xml"
    arguments = ["check", train, "--heldout", heldout, "--fail-on", gate, "--junit", str(junit)]
    done = CliRunner().invoke(
        command_line(), [*arguments, "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == code
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("name"), suite.get("failures")) == ("heldout check", str(code))
    cases = {case.get("name"): case for case in suite}
    assert set(cases) == {parse_gate(gate).words, "duplicate", "personal", "problem"}
    if code:
        failure = cases["leak>1%"].find("failure")
        assert failure.get("message") == "leak: 3 of 200 rows: 1.50%"


def test_a_public_test_set_by_name_is_a_folder_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gsm8k").mkdir()
    row = {"question": "How many?", "answer": "Four."}
    (tmp_path / "gsm8k/test.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = open_test_set("gsm8k").rows()
    assert found.messages[0]["content"] == "How many?"
    with pytest.raises(UserError) as caught:
        open_test_set("hellaswag")
    assert str(caught.value).startswith("--against hellaswag: Rowan/hellaswag:validation")
    assert str(caught.value).endswith("give a file or folder of that name with its rows.")
    assert "\n" not in str(caught.value)
