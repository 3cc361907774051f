"""Benchmarks, experiments and examples import only what the package has."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "experiments", "examples")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_imported_from_heldout_exists(path):
    missing = [
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "heldout"
        for name in node.names
        if not exists(node.module, name.name)
    ]
    assert not missing


def exists(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_a_name_that_is_gone_is_told():
    assert exists("heldout.lm", "measuring")
    assert exists("heldout.lm.measuring.pass_statistics", "pass_statistics")
    assert not exists("heldout.lm.measuring.pass_statistics", "readings")
