"""The table of architectures is the record's, and the record meets its criteria."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record():
    (path,) = (ROOT / "benchmarks" / "results").glob("architectures_*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def module(name, folder):
    sys.path.insert(0, str(ROOT / folder))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found
    finally:
        sys.path.remove(str(ROOT / folder))


def test_the_table_of_the_docs_is_the_records(record):
    table = module("generate", "docs").architectures()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(record["table"])
    for row, line in zip(record["table"], rows, strict=True):
        assert line.startswith(f"| `{row['architecture']}` |")
        if row.get("dropout_hidden", "").startswith("refused: "):
            assert row["dropout_hidden"].removeprefix("refused: ") in table


def test_the_record_meets_its_criteria(record):
    benchmark = module("architectures", "benchmarks")
    built = [row for row in record["table"] if "not_built" not in row]
    figures = benchmark.figures(built)
    assert {name: figures[name] for name in record["figures"]} == record["figures"]
    assert all(figures[name] >= least for name, least in benchmark.LEAST.items())
    assert not any(figures[name] for name in benchmark.NONE)
