"""Write the recorded result of an experiment: result.json beside its script."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from heldout.core.environment import hardware, versions


def write_result(
    folder: Path,
    *,
    claim: str,
    claim_holds: Literal["yes", "partly", "no"],
    summary: str,
    figures: dict[str, float],
    table: list[dict[str, Any]],
    seeds: list[int],
    data_sha256: str,
    note: str = "",
) -> None:
    """Claim, whether it holds and the figures, with what they were made with."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()
    result = {
        "experiment": folder.name,
        "claim": claim,
        "claim_holds": claim_holds,
        "summary": summary,
        "figures": figures,
        "table": table,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit,
        "seeds": seeds,
        "data_sha256": data_sha256,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "note": note,
    }
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")
