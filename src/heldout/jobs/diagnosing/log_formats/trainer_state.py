"""``trainer_state.json`` of a Hugging Face Trainer: TRL, axolotl, LLaMA-Factory and unsloth too."""

import json
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.finite import finite
from heldout.jobs.diagnosing.raw_log import RawLog

READS = "trainer_state.json (transformers, TRL, axolotl, LLaMA-Factory, unsloth)"
PLACES = ("trainer_state.json", "checkpoint-*/trainer_state.json")


def read(path: Path, head: bytes) -> RawLog | None:
    """Raises UserError for a file of that name that is damaged."""
    named = path.name == "trainer_state.json"
    if not named and (not head.lstrip().startswith(b"{") or b'"log_history"' not in head):
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for entry in state["log_history"] if isinstance(entry, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not the log of a Trainer ({error}).") from None
    done, planned = finite(state.get("global_step")), finite(state.get("max_steps"))
    ended = any("train_runtime" in entry for entry in entries[-2:])
    return RawLog(entries, state, (), ended or bool(done and planned and done >= planned))
