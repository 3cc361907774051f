"""Lines or a list of JSON objects: LLaMA-Factory's trainer_log.jsonl, history of W&B, others.

LLaMA-Factory 0.9.5, ``train/callbacks.py``: current_steps, total_steps, loss, eval_loss, lr, epoch.
"""

import json
from pathlib import Path
from typing import Any

from heldout.core.finite import finite
from heldout.jobs.diagnosing.raw_log import RawLog, json_object, raw_log, text_of

READS = "JSON lines with a loss (LLaMA-Factory's trainer_log.jsonl, history of W&B, axolotl)"
PLACES = ("trainer_log.jsonl", "*history*.jsonl", "*log*.jsonl", "*metrics*.jsonl")


def read(path: Path, head: bytes) -> RawLog | None:
    """Lines that are no JSON are left out; the last may be half written."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        rows = _listed(path)
    elif start.startswith(b"{") and (json_object(start.splitlines()[0]) is not None):
        rows = [row for line in text_of(path).splitlines() if (row := json_object(line))]
    else:
        return None
    if len(rows) == 1 and "log_history" in rows[0]:
        return None
    last = rows[-1] if rows else {}
    planned = finite(last.get("total_steps"))
    percentage = finite(last.get("percentage"))
    ended = None if percentage is None else percentage >= 100 and "loss" not in last
    state = {"max_steps": planned} if planned else {}
    return raw_log([_flat(row) for row in rows], state=state, has_ended=ended)


def _listed(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(text_of(path))
    except (ValueError, RecursionError):
        return []
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _flat(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    """``{"train": {"loss": 1}}`` as ``{"train/loss": 1}``."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and not before:
            found |= _flat(value, f"{key}/")
        else:
            found[f"{before}{key}"] = value
    return found
