"""What MLX-LM prints while it trains. It counts no epochs.

mlx-lm 0.28.0, ``tuner/trainer.py``: ``Iter 100: Val loss 2.345, Val took 3.2s``; 0.32.2,
``cli_ui.py``: a table, ``100    val 2.345    3.20s`` and ``100    1.234 ▼    512    40.1k``. The
validation loss of iteration 1 is that before training: step 0.
"""

import re
from pathlib import Path

from heldout.jobs.diagnosing.raw_log import RawLog, raw_log, text_of

READS = "what MLX-LM prints"
PLACES = ("*.log", "*.out", "*.txt")

_COLORS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NUMBER = r"([\d.]+(?:e[+-]?\d+)?|nan|inf)"
_VALIDATION = re.compile(rf"Iter (\d+): Val loss {_NUMBER}")
_TRAINING = re.compile(rf"Iter (\d+): Train loss {_NUMBER}(?:, Learning Rate {_NUMBER})?")
_VALIDATION_ROW = re.compile(rf" *(\d+) +val +{_NUMBER} +[\d.]+s")
_TRAINING_ROW = re.compile(rf" *(\d+) +{_NUMBER} [▼▲]")


def read(path: Path, head: bytes) -> RawLog | None:
    """Both forms, also in color."""
    start = _COLORS.sub("", head.decode("utf-8", "replace"))
    if not any(
        pattern.search(start)
        for pattern in (_VALIDATION, _TRAINING, _VALIDATION_ROW, _TRAINING_ROW)
    ):
        return None
    text = _COLORS.sub("", text_of(path))
    rows = []
    for line in text.splitlines():
        if found := _VALIDATION.search(line) or _VALIDATION_ROW.match(line):
            step = int(found[1])
            rows.append({"step": step if step > 1 else 0, "val_loss": found[2]})
        elif found := _TRAINING.search(line):
            rows.append({"step": int(found[1]), "train_loss": found[2], "lr": found[3]})
        elif found := _TRAINING_ROW.match(line):
            rows.append({"step": int(found[1]), "train_loss": found[2]})
    ended = True if "Saved final weights" in text else None
    return raw_log(rows, has_ended=ended)
