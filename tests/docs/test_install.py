"""The page on installing names every extra of the package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_extras_is_that_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, flags=re.M))
    extras = declared["optional-dependencies"]
    assert rows.keys() == extras.keys()
    for name in extras.keys() - {"all", "dev"}:
        packages = [re.split(r"[=><]", each)[0] for each in extras[name]]
        assert rows[name] == ", ".join(packages)
    everything = re.search(r"\[(.*)\]", extras["all"][0])[1].split(",")
    assert sorted(everything) == sorted(extras.keys() - {"all", "dev"})
