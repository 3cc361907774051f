"""Write a benchmark record: figures with hardware, versions, commit, seeds, data and command."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from heldout.core.environment import hardware, versions

RESULTS = Path(__file__).parent / "results"


def write_record(
    benchmark: str,
    figures: dict[str, float],
    *,
    table: list[dict[str, Any]] | None = None,
    seeds: list[int],
    data_sha256: str,
    command: str = "",
    hardware_name: str = "",
    note: str = "",
) -> Path:
    """One JSON file under ``benchmarks/results/``; an existing record is never touched."""
    name = hardware_name or hardware()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    stamp = time.strftime("%Y-%m-%d")
    path = RESULTS / f"{benchmark}_{slug}_{stamp}.json"
    number = 2
    while path.exists():
        path = RESULTS / f"{benchmark}_{slug}_{stamp}-{number}.json"
        number += 1
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS, check=False
    ).stdout.strip()
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": benchmark,
        "figures": figures,
        "table": table or [],
        "hardware": name,
        "versions": versions(),
        "commit": commit,
        "seeds": seeds,
        "data_sha256": data_sha256,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command or " ".join(["python", *sys.argv]),
        "note": note,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path
