"""Write a benchmark record: figures with hardware, versions, commit, seeds, data and command."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from heldout.core.environment import hardware, versions
from heldout.core.finite import without_infinity

RESULTS = Path(__file__).parent / "results"
MAKERS = {"nvidia", "amd", "geforce", "tesla", "quadro", "radeon", "instinct"}


def write_record(
    benchmark: str,
    figures: dict[str, float],
    *,
    table: list[dict[str, Any]] | None = None,
    seeds: list[int],
    data_sha256: str,
    command: str = "",
    note: str = "",
) -> Path:
    """Write ``benchmarks/results/NAME_HARDWARE_DATE.json``; an existing record is never touched."""
    gpu = gpu_used()
    kind = hardware_kind(gpu, num_cores())
    stamp = time.strftime("%Y-%m-%d")
    path = RESULTS / f"{benchmark}_{kind}_{stamp}.json"
    number = 2
    while path.exists():
        path = RESULTS / f"{benchmark}_{kind}_{stamp}-{number}.json"
        number += 1
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS, check=False
    ).stdout.strip()
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": benchmark,
        "figures": figures,
        "table": table or [],
        "hardware": f"{hardware()}, {gpu}" if gpu else hardware(),
        "versions": versions(),
        "commit": commit,
        "seeds": seeds,
        "data_sha256": data_sha256,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command or " ".join(["python", *sys.argv]),
        "note": note,
    }
    path.write_text(json.dumps(without_infinity(record), indent=2) + "\n", encoding="utf-8")
    return path


def hardware_kind(gpu: str, cores: int) -> str:
    """What the file name says of the machine: ``gpu-h200`` or ``cpu-2-cores``, no maker's brand."""
    if not gpu:
        return f"cpu-{cores}-cores"
    words = re.findall(r"[a-z0-9]+", gpu.lower())
    return "-".join(["gpu", *(word for word in words if word not in MAKERS)])


def gpu_used() -> str:
    """The name of the GPU that this process has used, or "" where it used none."""
    torch = sys.modules.get("torch")  # not loaded here: its memory would count as the benchmark's
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else ""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
