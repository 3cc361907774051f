"""``history.jsonl`` of a run of heldout, whose ``status.json`` tells whether it goes on."""

from pathlib import Path

from heldout.core.run import Run
from heldout.jobs.diagnosing.raw_log import RawLog, json_object, raw_log, text_of

READS = "history.jsonl (heldout)"
PLACES = ("history.jsonl",)


def read(path: Path, head: bytes) -> RawLog | None:
    """Held-out losses are those of the validation part."""
    if b'"validation_nll"' not in head:
        return None
    rows = [row for line in text_of(path).splitlines() if (row := json_object(line))]
    known = ("step", "epoch", "training_loss", "learning_rate")
    status = Run(path.parent).path("status.json")
    state = (json_object(status.read_text(encoding="utf-8")) or {}) if status.is_file() else {}
    return raw_log(
        [{**{key: row.get(key) for key in known}, "eval_loss": row.get("validation_nll")}
         for row in rows],
        has_ended=state.get("state") in ("complete", "failed", "interrupted") if state else None,
    )  # fmt: skip
