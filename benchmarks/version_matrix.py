"""The contracts on the oldest and the newest versions of what the package builds on.

Sets of versions: all the oldest that pyproject.toml allows, all the newest, and each oldest among
the newest. Where an oldest one keeps out the newest TRL, which asks for newer datasets, the set has
the newest TRL that goes with it. Each set is a virtual environment of its own, in which pip puts
its versions, with all that they ask for, before the packages of the environment that runs this.

torch is that environment's, as an index may have it for GPUs alone, in gigabytes: ``--torch-index``
names one that has builds for the processor, and varies torch as well.

Tests that run are those of what touches these libraries: attach and its invariants, TRL, adapters,
loading, data sets, a whole fit. Left out are tests over architectures, of which each release of
transformers has others. Warnings are no errors here: other versions deprecate other names.

- ``sets``: sets of versions that were tried; ``broken`` of them have a failing test.
- ``not_installed``: sets that pip could not install, though the bounds allow them.
- ``tests``: tests that ran, over all sets; ``failed`` of them failed. ``skipped`` ones need what a
  version does not have.

    python benchmarks/version_matrix.py [--torch-index URL] [--work FOLDER] [--write]

Some three minutes of one core a set. With ``--work`` each set that has ended is kept there and not
run again on the same sources and tests.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

MOST_BROKEN = 0
"""``broken`` and ``not_installed``: bounds in pyproject.toml promise that what they allow works."""
MOST_SKIPPED = 0.01
"""``skipped`` over ``tests``: what is not tried is not promised."""

ROOT = Path(__file__).resolve().parents[1]
VARIED = ("transformers", "trl", "peft", "accelerate", "datasets")
TESTS = (
    "tests/contracts",
    "tests/invariants",
    "tests/training",
    "tests/lm",
    "tests/data/test_read.py",
    "tests/data/test_layout.py",
    "tests/jobs/fitting/test_fit.py",
    "tests/jobs/fitting/test_regularized_fit.py",
    "--ignore=tests/lm/test_experts.py",
)


def bounds() -> dict[str, Requirement]:
    """Package -> what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return {each.name: each for each in map(Requirement, named)}


def version_sets(varied: tuple[str, ...]) -> dict[str, list[str]]:
    """What to install in each: all oldest, all newest, and each oldest among the newest."""
    newest = {name: each for name, each in bounds().items() if name in varied}
    oldest = {
        name: f"{name}=={bound.version}"
        for name, each in newest.items()
        for bound in each.specifier
        if bound.operator == ">="
    }
    assert oldest.keys() == newest.keys() == set(varied)
    ranges = {name: str(each) for name, each in newest.items()}
    sets = {"oldest": oldest, "newest": ranges}
    sets |= {f"oldest {name}": {**ranges, name: pin} for name, pin in oldest.items()}
    return {name: list(wanted.values()) for name, wanted in sets.items()}


def tried(name: str, wanted: list[str], options: list[str]) -> dict[str, Any]:
    """How the contracts end on one set of versions."""
    with tempfile.TemporaryDirectory(prefix="heldout-versions-") as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        own = Path(sysconfig.get_path("purelib", vars={"base": folder}))
        (own / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = [python, "-m", "pip", "install", "--quiet", "--upgrade", *options]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if done.returncode:
            return {"set": name, "not_installed": done.stderr.strip().splitlines()[-1]}
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        ask = f"import json; from importlib.metadata import version as v; n = {('torch', *VARIED)}"
        listed = subprocess.run(
            [python, "-c", f"{ask}; print(json.dumps(dict(zip(n, map(v, n)))))"],
            capture_output=True,
            text=True,
            check=True,
        )
        done = subprocess.run(
            [
                python,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-o",
                "filterwarnings=",
                *TESTS,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment,
        )
    last = done.stdout.strip().splitlines()[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last)}
    return {
        "set": name,
        "versions": json.loads(listed.stdout),
        "passed": counts.get("passed", 0),
        "failed": sum(counts.get(word, 0) for word in ("failed", "error", "errors")),
        "skipped": counts.get("skipped", 0),
        "failures": re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE),
        "is_broken": done.returncode != 0,
    }


def sources() -> str:
    """Names what is tried: package, tests and bounds, as they are committed."""
    listed = subprocess.run(
        ["git", "ls-tree", "HEAD", "src", "tests", "pyproject.toml"],
        capture_output=True,
        check=True,
        cwd=ROOT,
    ).stdout
    return hashlib.sha256(listed).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-index", default="", help="where builds for the CPU alone lie")
    parser.add_argument("--set", action="append", help="these sets only")
    parser.add_argument("--work", type=Path, help="keeps what has ended, to go on after a stop")
    parser.add_argument("--note", default="", help="for the record")
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    varied, told = VARIED, [f"torch=={version('torch')}"]
    if options.torch_index:
        varied, told = ("torch", *VARIED), ["--extra-index-url", options.torch_index]
    table = []
    for name, wanted in version_sets(varied).items():
        if options.set and name not in options.set:
            continue
        kept = options.work and options.work / sources() / f"{name.replace(' ', '_')}.json"
        if kept and kept.exists():
            row = json.loads(kept.read_text(encoding="utf-8"))
        else:
            row = tried(name, wanted, told)
        if kept and "not_installed" not in row:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(row), encoding="utf-8")
        table.append(row)
        print(row, flush=True)
    ran = [row for row in table if "not_installed" not in row]
    figures = {
        "sets": len(ran),
        "not_installed": len(table) - len(ran),
        "broken": sum(row["is_broken"] for row in ran),
        "tests": sum(row["passed"] + row["failed"] for row in ran),
        "failed": sum(row["failed"] for row in ran),
        "skipped": sum(row["skipped"] for row in ran),
    }
    print(figures)
    if options.write:
        from record import write_record

        sha = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        path = write_record(
            "version_matrix", figures, table=table, seeds=[], data_sha256=sha, note=options.note
        )
        print(path)
    assert figures["broken"] + figures["not_installed"] <= MOST_BROKEN
    assert figures["skipped"] <= MOST_SKIPPED * figures["tests"]


if __name__ == "__main__":
    main()
