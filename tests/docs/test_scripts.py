"""Scripts import, and pages name, only what the package and the repository have."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "experiments", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/decisions", "experiments/*", "examples/*")
    for path in ROOT.glob(f"{folder}/*.md")
)
# Dotted names of the package, but not of schemas, such as heldout.check/1.
NAMES = re.compile(r"\bheldout((?:\.[A-Za-z_]\w*)+)(?![\w/])")
PATHS = re.compile(
    r"(?<![\w/.-])((?:src/heldout|benchmarks|experiments|examples|tests|docs)/(?!results/NAME)[\w/.-]*\w/?)"
    r"|(?<![\w/.-])((?:core|lm|data|augment|regularizers|probes|training|search|scaling|diagnosis"
    r"|report|jobs|cli)/[\w/]+\.py)\b"
)
NOT_OF_THE_PACKAGE = {"plugins", "YourClass", "LowerCase"}  # entry points, classes of readers


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_and_path_in_a_page_exists(path):
    text = path.read_text(encoding="utf-8")
    names = [f"heldout{name}" for name in NAMES.findall(text) if not name_exists(name)]
    paths = [found for found in paths_in(text) if not (ROOT / found).exists()]
    assert not [*names, *paths]


def exists(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def name_exists(dotted: str) -> bool:
    """``.module.name`` of the package: a module, something in it, or an attribute of that."""
    module, found = "heldout", importlib.import_module("heldout")
    for name in dotted[1:].split("."):
        if name in NOT_OF_THE_PACKAGE:
            return True
        if not exists(module, name) and not hasattr(found, name):
            return False
        found = getattr(found, name, None)
        module = f"{module}.{name}"
    return True


def paths_in(text: str) -> list[str]:
    """Paths of the repository; those below a package of heldout count from ``src/heldout``."""
    return [whole or f"src/heldout/{part}" for whole, part in PATHS.findall(text)]


def test_a_name_that_is_gone_is_told():
    assert exists("heldout.lm", "measuring")
    assert exists("heldout.lm.measuring.pass_statistics", "pass_statistics")
    assert not exists("heldout.lm.measuring.pass_statistics", "readings")


def test_names_and_paths_in_a_page_are_found():
    text = "`heldout.lm.nll.document_losses(m)` of `heldout.check/1` in lm/nll.py, docs/fit.md."
    assert NAMES.findall(text) == [".lm.nll.document_losses"]
    assert paths_in(text) == ["src/heldout/lm/nll.py", "docs/fit.md"]
    assert name_exists(".lm.nll.document_losses")
    assert not name_exists(".lm.nll.readings")
