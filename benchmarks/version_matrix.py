"""The contracts on the oldest and the newest versions of what the package builds on.

For each set of versions a virtual environment is made, the package is installed with its lower
bounds or with the newest releases, and the tests that touch transformers, TRL, PEFT and accelerate
run in it. torch is taken where its index has a build for the processor alone (``--torch-index``).

- ``sets``: sets of versions that could be installed; ``broken`` of them have a failing test.
- ``tests``: tests that ran, over all sets; ``failed`` of them failed.

    python benchmarks/version_matrix.py [--torch-index URL] [--write]
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

MOST_BROKEN = 0
"""``broken``: bounds in pyproject.toml promise that what they allow works."""

ROOT = Path(__file__).resolve().parents[1]
VARIED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
TESTS = ("tests/contracts", "tests/invariants", "tests/training", "tests/lm/test_load.py")


def lower_bounds() -> dict[str, str]:
    """Package -> the oldest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    found = {}
    for line in named:
        match = re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", line)
        if match and match[1] in VARIED:
            found[match[1]] = match[2]
    return found


def version_sets() -> dict[str, list[str]]:
    """What to install in each: all oldest, all newest, and each oldest among the newest."""
    oldest = {name: f"{name}~={_as_minor(bound)}" for name, bound in lower_bounds().items()}
    sets = {"oldest": list(oldest.values()), "newest": list(VARIED)}
    for name, pin in oldest.items():
        sets[f"oldest {name}"] = [pin, *(other for other in VARIED if other != name)]
    return sets


def _as_minor(bound: str) -> str:
    """The newest patch of that minor version: ``5`` is ``5.0.0``, of which 5.0.1 is a mending."""
    return ".".join([*bound.split("."), "0", "0"][:3])


def tried(name: str, wanted: list[str], index: str) -> dict[str, Any]:
    """How the contracts end on one set of versions."""
    with tempfile.TemporaryDirectory(prefix="heldout-versions-") as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        if index:
            torch = next(each for each in wanted if each.startswith("torch"))
            done = subprocess.run([*pip, "--index-url", index, torch], check=False)
            if done.returncode:
                return {"set": name, "not_installed": torch}
        others = [each for each in wanted if not (index and each.startswith("torch"))]
        done = subprocess.run(
            [*pip, "--editable", f"{ROOT}[dev]", *others],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {"set": name, "not_installed": done.stderr.strip().splitlines()[-1]}
        listed = subprocess.run(
            [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
        ).stdout
        done = subprocess.run(
            [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    versions = dict(line.split("==") for line in listed.splitlines() if line.count("==") == 1)
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)
    }
    return {
        "set": name,
        "versions": {each: versions.get(each) for each in VARIED},
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0),
        "failures": re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE),
        "is_broken": done.returncode != 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-index", default="", help="where builds for the CPU alone lie")
    parser.add_argument("--set", action="append", help="these sets only")
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    sets = {n: w for n, w in version_sets().items() if not options.set or n in options.set}
    table = []
    for name, wanted in sets.items():
        table.append(tried(name, wanted, options.torch_index))
        print(table[-1], flush=True)
    ran = [row for row in table if "not_installed" not in row]
    figures = {
        "sets": len(ran),
        "not_installed": len(table) - len(ran),
        "broken": sum(row["is_broken"] for row in ran),
        "tests": sum(row["passed"] + row["failed"] for row in ran),
        "failed": sum(row["failed"] for row in ran),
    }
    print(figures)
    assert figures["broken"] <= MOST_BROKEN
    if options.write:
        from record import write_record

        sha = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        print(write_record("version_matrix", figures, table=table, seeds=[], data_sha256=sha))


if __name__ == "__main__":
    main()
