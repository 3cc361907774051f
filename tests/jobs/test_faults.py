"""A few cases of ``benchmarks/faults.py`` of each group, with real processes that are killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("settings", "options", "files", "models", "runs", "changes", "kills", "twice")
FAULTS = ("tracebacks", "hangs", "lost", "doubled", "rubbish_left", "unclear")


@pytest.mark.slow
def test_nothing_is_lost_and_each_refusal_is_one_line():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--sample"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases, _, figures = done.stdout.partition("{\n")
    found = json.loads("{" + figures)
    assert {name: found[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0), cases
    assert all(found[f"tried_{group}"] for group in GROUPS)
    assert found["tried"] >= 27
