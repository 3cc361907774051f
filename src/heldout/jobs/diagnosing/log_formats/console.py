"""What a Trainer prints: ``{'loss': '2.7', 'learning_rate': '1e-04', 'epoch': '0.2'}``.

transformers 5.23.0, ``trainer_callback.py``; TRL, axolotl and unsloth print the same. Steps stand
in the progress bar alone, ``50/500 [``, which lags: they are read off it and the epochs. Without
one, entries are counted.
"""

import ast
import re
from pathlib import Path
from typing import Any

from heldout.jobs.diagnosing.raw_log import RawLog, number, raw_log, text_of

READS = "what a Trainer prints (axolotl, unsloth, TRL)"
PLACES = ("*.log", "*.out", "*.txt")

_ENTRY = re.compile(r"\{'[^{}]*?'?(?:eval_\w*)?loss'[^{}]*\}")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_BARE = re.compile(r": (nan|-?inf)\b")


def read(path: Path, head: bytes) -> RawLog | None:
    """The entries; the bar of training is the longest."""
    if not _ENTRY.search(head.decode("utf-8", "replace")):
        return None
    text = text_of(path)
    total = max((int(found[2]) for found in _BAR.finditer(text)), default=0)
    rows: list[dict[str, Any]] = []
    step, ended, per_epoch = 0, False, 0.0
    for found in re.finditer(f"{_BAR.pattern}|{_ENTRY.pattern}", text):
        if found[1]:
            step = int(found[1]) if int(found[2]) == total else step
            continue
        row = _entry(found[0])
        ended = ended or "train_runtime" in row
        if epoch := number(row.get("epoch")):
            per_epoch = (total if ended else step) / epoch
        if "train_runtime" not in row:
            rows.append(row)
    if per_epoch:
        rows = [
            {**row, "step": round((number(row.get("epoch")) or 0.0) * per_epoch)} for row in rows
        ]
    notes = () if per_epoch else ("The log names no steps: its entries are counted instead.",)
    return raw_log(rows, state={"max_steps": total} if total else {}, notes=notes, has_ended=ended)


def _entry(text: str) -> dict[str, Any]:
    try:
        found = ast.literal_eval(_BARE.sub(r": '\1'", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
