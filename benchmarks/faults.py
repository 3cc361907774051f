"""Nothing lost, nothing doubled, one true line: commands that are given what cannot work, killed,
started twice, or run out of disk.

Each case runs in a folder, a home and a temporary folder of its own, as a process of its own:
forked from one that has imported (imports take longer than most cases), and some kills as
``python -m heldout``. Kills are SIGKILL, SIGTERM and SIGINT to that process after a random share
of the processor time that the whole job takes; afterwards the user's next command is given. Full
and read-only disks are memory file systems, mounted in a namespace (``unshare``). Rows are prose of
the World Factbook, the model a random Llama of 9 thousand parameters.

A command that is refused must exit with 2, say one line (the only one that begins with
``heldout:``, of at most 1,000 characters) that names the argument or its place and its value by the
case's pattern, and leave all files as they were. What may be read all the same (a file with some
broken rows) may also go well. A job that was stopped must end with the same files as the whole one:
figures, losses, texts and weights, without times and, after a signal that is obeyed, without the
training loss of the interrupted interval.

Criteria, set before the recorded run:

- ``tried`` >= 250
- ``tracebacks`` 0
- ``hangs`` 0: 120 seconds of processor, or 60 of none
- ``lost`` 0: a file of the user's that changed, a job that cannot go on or ends with other figures,
  a seal that a refusal opened
- ``doubled`` 0: a step of a history or an opening of the seal twice, or two commands at work
- ``rubbish_left`` 0: files that a refusal leaves, and half-written or temporary files and
  processes that are there after the command that follows a kill
- ``unclear`` 0: refusals with another exit code, or without the one line

``docs/refusals.md`` lists 50 refusals, drawn at random, to be read.

    python benchmarks/faults.py [--tiny | --sample] [--minutes 30] [--only GROUP] [--write]

``--sample`` draws a few cases of each group, as ``tests/jobs/test_faults.py`` does.

Finished cases are kept in ``.cache/faults`` under a hash of the sources: the same command goes on.
About 12 minutes of one idle core.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults_disks
from faults_materials import made
from faults_processes import import_all
from faults_refused import Case, refused_cases
from faults_stopped import stopped_cases
from record import write_record

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "faults"
SEED = 20261130
FAULTS = ("tracebacks", "hangs", "lost", "doubled", "rubbish_left", "unclear")
LEAST_TRIED, NUM_SHOWN = 250, 50
# How many of each group.
SAMPLE = {
    "settings": 5,
    "options": 5,
    "files": 5,
    "models": 4,
    "runs": 3,
    "changes": 2,
    "kills": 2,
    "twice": 1,
    "disks": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="one case in twelve")
    parser.add_argument("--sample", action="store_true", help="a few of each group, by the seed")
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--only", default="", help="of this group")
    parser.add_argument("--write", action="store_true", help="the record, and docs/refusals.md")
    given = parser.parse_args()
    _in_a_namespace()
    end = time.monotonic() + 60 * given.minutes
    import_all()
    materials = made(CACHE / f"materials-{sources()}")
    cases = [*refused_cases(materials), *stopped_cases(materials, SEED)]
    assert len({case.name for case in cases}) == len(cases), "two cases of one name"
    cases = [case for case in cases if given.only in case.group]
    if given.tiny:
        cases = cases[::12]
    if given.sample:
        cases = sample(cases)
    kept = Kept(CACHE / f"{sources()}.jsonl")
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        for number, case in enumerate(cases):
            if case.name in kept.entries:
                continue
            if time.monotonic() > end:
                print(
                    f"{len(kept.entries)} of {len(cases)} cases are done: the same command goes on"
                )
                return
            folder = Path(place) / str(number)
            entry = case.run(folder)
            kept.add(case, entry)
            shutil.rmtree(folder, ignore_errors=True)
            told = {name: entry[name] for name in FAULTS if entry.get(name)}
            print(
                f"{number + 1}/{len(cases)} {case.group}: {case.name}: {told or 'ok'}", flush=True
            )
    found = [kept.entries[case.name] for case in cases]
    figures = summary(found)
    print(json.dumps(figures, indent=2))
    if given.write:
        _write(found, figures)


def sample(cases: list[Case]) -> list[Case]:
    """So many of each group, and of what is stopped those of ``fit`` alone, in their order."""
    drawn: list[Case] = []
    if not faults_disks.can_mount(CACHE / "disk"):
        cases = [case for case in cases if case.group != "disks"]
    for group, num in SAMPLE.items():
        of_group = [case for case in cases if case.group == group]
        if group in ("kills", "twice", "disks"):
            of_group = [case for case in of_group if case.name.startswith("fit")]
        drawn += random.Random(f"{SEED} {group}").sample(of_group, min(num, len(of_group)))
    return [case for case in cases if case in drawn]


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that the criteria are about, and how many cases there were of each group."""
    figures: dict[str, float] = {"tried": len(found)}
    figures |= {name: sum(bool(each.get(name)) for each in found) for name in FAULTS}
    figures["refused"] = sum(each.get("code") == 2 for each in found)
    for each in found:
        name = f"tried_{each['group']}"
        figures[name] = figures.get(name, 0) + 1
    figures["met"] = float(len(found) >= LEAST_TRIED and not any(figures[name] for name in FAULTS))
    return figures


class Kept:
    """Finished cases, a line each."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.entries = {entry["name"]: entry for entry in map(json.loads, lines)}

    def add(self, case: Case, entry: dict[str, Any]) -> None:
        self.entries[case.name] = {"group": case.group, "name": case.name, **entry}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.entries[case.name]) + "\n")


def sources() -> str:
    """A hash of what is tried, and of what tries it."""
    found = hashlib.sha256()
    for path in _sources():
        found.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _sources() -> Iterator[Path]:
    yield from sorted((ROOT / "src" / "heldout").rglob("*.py"))
    yield from sorted((ROOT / "src" / "heldout").rglob("*.toml"))
    yield from (p for p in sorted((ROOT / "benchmarks").glob("faults_*.py")))


def _in_a_namespace() -> None:
    """Start again where mounts are seen by nobody else, with a home of its own."""
    home = CACHE / "home"
    home.mkdir(parents=True, exist_ok=True)
    if os.environ.get("HOME") == str(home):
        return
    environment = {**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
    command = [sys.executable, *sys.argv]
    apart = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") and not subprocess.run([*apart, "true"], check=False).returncode:
        command = [*apart, *command]
    os.execvpe(command[0], command, environment)


def _write(found: list[dict[str, Any]], figures: dict[str, float]) -> None:
    refused = [each for each in found if each.get("code") == 2 and each.get("line")]
    shown = random.Random(SEED).sample(refused, min(NUM_SHOWN, len(refused)))
    lines = [
        "# Fifty refusals",
        "",
        "Drawn at random from the record `faults`, which gives every command what cannot work. "
        "Written by `benchmarks/faults.py`; what reads badly here is mended at its source.",
        "",
    ]
    for each in sorted(shown, key=lambda each: each["name"]):
        lines += [f"- {each['name']}  ", f"  `{each['command']}`  ", f"  > {each['line']}", ""]
    (ROOT / "docs" / "refusals.md").write_text("\n".join(lines), encoding="utf-8")
    text = json.dumps([each["name"] for each in found])
    print(
        write_record(
            "faults",
            figures,
            table=found,
            seeds=[SEED],
            data_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
    )


if __name__ == "__main__":
    main()
