"""Bounds on what the package builds on: the page says them, and the record has tried them."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("version_matrix_*.json"))
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "trl")


def requirements(lines):
    return {each.name: each.specifier for each in map(Requirement, lines)}


@pytest.fixture(scope="module")
def bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {name: found for name, found in requirements(lines).items() if name in PACKAGES}


def bound(specifier, operator):
    (found,) = [Version(each.version) for each in specifier if each.operator == operator]
    return found


def test_the_page_says_the_bounds(bounds):
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| (\w+).* \| `(>=.*?)` \|", page, flags=re.M))
    assert tuple(told) == PACKAGES == tuple(name for name in told if name in bounds)
    assert requirements(f"{name}{words}" for name, words in told.items()) == bounds


def test_what_tests_run_with_is_allowed(bounds):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = requirements(line for line in lines if not line.startswith("#"))
    for name, allowed in bounds.items():
        assert allowed.contains(bound(pins[name], "=="))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_pages_say_what_the_record_has_tried(path):
    rows = {row["set"]: row for row in json.loads(path.read_text(encoding="utf-8"))["table"]}
    tried = {
        name: sorted({Version(row["versions"][name]).public for row in rows.values()}, key=Version)
        for name in PACKAGES
    }
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| (\w+).* \| `>=.*?` \| (.*) \|", page, flags=re.M))
    assert told == {name: ", ".join(found) for name, found in tried.items()}
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for package, written in (
            ("transformers", "transformers"),
            ("trl", "TRL"),
            ("peft", "PEFT"),
        ):
            said = re.search(rf"{written} ([\d.]+)(?: to | 到 )([\d.]+\d)", text)
            assert list(said.groups()) == [tried[package][0], tried[package][-1]]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_record_has_tried_each_bound(bounds, path):
    rows = {row["set"]: row for row in json.loads(path.read_text(encoding="utf-8"))["table"]}
    assert not [name for name, row in rows.items() if row["is_broken"]]
    tried = {
        (set_name, name): Version(found)
        for set_name, row in rows.items()
        for name, found in row["versions"].items()
    }
    for name in set(PACKAGES) - {"torch"}:
        lower, upper = bound(bounds[name], ">="), bound(bounds[name], "<")
        newest = tried["newest", name]
        assert tried["oldest", name] == tried[f"oldest {name}", name] == lower < newest
        assert upper == Version(str(newest.major + 1)), "the next major after what was tried"
