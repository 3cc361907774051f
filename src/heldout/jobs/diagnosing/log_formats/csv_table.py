"""A csv with a column of losses: Lightning's ``metrics.csv``, exports of W&B and MLflow, Keras.

Lightning 2.6.6, ``fabric/loggers/csv_logs.py``: epoch and step, counted from 0, and a column a
metric, empty where it was not logged.
"""

from pathlib import Path
from typing import Any

from heldout.core.csv_rows import BrokenCsv, csv_rows
from heldout.jobs.diagnosing.raw_log import RawLog, raw_log, text_of

READS = "csv with a column of losses (Lightning's metrics.csv, exports of W&B)"
PLACES = (
    "metrics.csv",
    "version_*/metrics.csv",
    "*/version_*/metrics.csv",
    "*/metrics.csv",
    "*.csv",
)


def read(path: Path, head: bytes) -> RawLog | None:
    """The first line names the columns; a cut row, such as the last one of a run, is left out."""
    first = head.decode("utf-8-sig", "replace").partition("\n")[0]
    if "," not in first or "loss" not in first.lower() or first.lstrip().startswith(("{", "[")):
        return None
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    try:
        for row in csv_rows(text_of(path).splitlines(keepends=True)):
            if not names:
                names = row.cells
            elif len(row.cells) == len(names):
                rows.append(dict(zip(names, row.cells, strict=True)))
    except BrokenCsv:
        pass  # what was written before can be read
    return raw_log(rows)
