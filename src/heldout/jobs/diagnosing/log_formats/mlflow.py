"""MLflow's store: a folder of files (``mlruns``), or ``mlflow.db``, which is the default by now.

mlflow 3.17.2: ``EXPERIMENT/RUN/metrics/NAME`` with lines ``timestamp value step``, and the tables
``metrics`` and ``runs`` of SQLite.
"""

from contextlib import closing
from pathlib import Path

from heldout.jobs.diagnosing.raw_log import RawLog, number, raw_log, rows_by_step

READS = "MLflow's mlruns and mlflow.db"
PLACES = ("metrics", "*/metrics", "*/*/metrics", "mlruns/*/*/metrics", "mlflow.db", "*.db")

_SQLITE = b"SQLite format 3\0"
_OVER = ("status: 3", "status: 4", "status: 5")  # finished, failed, killed

_SQL = {
    "last": "SELECT run_uuid FROM metrics WHERE key LIKE '%loss%' ORDER BY timestamp DESC",
    "metrics": "SELECT key, value, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp",
    "status": "SELECT status FROM runs WHERE run_uuid = ?",
}


def read(path: Path, head: bytes) -> RawLog | None:
    """The metrics of one run; of a database those of the run that logged last."""
    if path.is_dir():
        return _of_folder(path) if path.name == "metrics" else None
    return _of_database(path) if head.startswith(_SQLITE) else None


def _of_folder(folder: Path) -> RawLog | None:
    series: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        points = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if len(words) == 3 and (value := number(words[1])) is not None and words[2].isdigit():
                points.append((int(words[2]), value))
        series[file.relative_to(folder).as_posix()] = points
    about = folder.parent / "meta.yaml"
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    return raw_log(rows_by_step(series), has_ended=any(line in _OVER for line in lines))


def _of_database(path: Path) -> RawLog | None:
    import sqlite3  # only for this

    series: dict[str, list[tuple[int, float]]] = {}
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            last = database.execute(_SQL["last"]).fetchone()
            if last is None:
                return None
            for key, value, step, is_nan in database.execute(_SQL["metrics"], last):
                series.setdefault(key, []).append((step, float("nan") if is_nan else value))
            (status,) = database.execute(_SQL["status"], last).fetchone()
    except sqlite3.Error:
        return None
    ended = status in ("FINISHED", "FAILED", "KILLED")
    return raw_log(rows_by_step(series), has_ended=ended)
