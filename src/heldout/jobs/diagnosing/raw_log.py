"""A training log before it is judged: entries with a Trainer's keys, whichever tool wrote them."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD_BYTES = 2**16  # of a file, by which its format is known


@dataclass(frozen=True)
class RawLog:
    """``entries`` and ``state`` are those of ``trainer_state.json``.

    ``has_ended`` is whether the log says that its training is over, None where it never says so.
    """

    entries: list[dict[str, Any]]
    state: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    has_ended: bool | None = None


STEPS = (
    "train_global_step",
    "trainer_global_step",
    "global_step",
    "step",
    "current_steps",
    "iteration",
    "iter",
    "_step",
)
_EPOCHS = ("epoch", "train_epoch", "trainer_epoch")
# The first of which there are two values is the training loss: Trainers end with a mean that is
# called train_loss, and Lightning logs a mean per epoch beside the loss of a step.
_TRAINING = (
    "loss",
    "train_loss_step",
    "train_loss",
    "training_loss",
    "loss_train",
    "loss_step",
    "train_loss_epoch",
    "loss_epoch",
)
_RATES = ("learning_rate", "lr", "train_learning_rate", "train_lr")
_NORMS = ("grad_norm", "train_grad_norm", "gradient_norm")
_HELD_OUT = ("eval", "val", "valid", "validation", "dev", "heldout", "test")
_EVALUATION = re.compile(
    rf"(?P<part>{'|'.join(_HELD_OUT)})_(?:(?P<name>.+)_)?loss(?:_epoch)?"
    r"(?:_(?P<loader>dataloader_idx_\d+))?"
)
_TURNED = re.compile(rf"loss_({'|'.join(_HELD_OUT)})")  # such as Loss/val


def raw_log(
    rows: Sequence[Mapping[str, Any]],
    *,
    state: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    has_ended: bool | None = None,
) -> RawLog | None:
    """Entries from rows of figures under the names that a tool gives them; None without a loss.

    A row is what was logged at once; it may lack its step or its epoch, and hold numbers as text.
    """
    plain = [{_plain(key): value for key, value in row.items()} for row in rows]
    count: dict[str, int] = {}
    for row in plain:
        for key, value in row.items():
            if number(value) is not None:
                count[key] = count.get(key, 0) + 1
    names = _names(count)
    if not {"loss"} & set(names.values()) and not any(_is_evaluation(v) for v in names.values()):
        return None
    entries: list[dict[str, Any]] = []
    for row in plain:
        entry = {names[key]: number(value) for key, value in row.items() if key in names}
        entry = {key: value for key, value in entry.items() if value is not None}
        if "loss" in entry or any(map(_is_evaluation, entry)):
            entries.append(entry)
    if not _counted_from_zero(entries):
        _with_steps(entries)
    return RawLog(entries, state or {}, tuple(notes), has_ended)


def rows_by_step(series: Mapping[str, Iterable[tuple[int, float]]]) -> list[dict[str, Any]]:
    """Rows from one list of (step, value) per name; the later of two values at a step counts."""
    rows: dict[int, dict[str, Any]] = {}
    for name, points in series.items():
        for step, value in points:
            rows.setdefault(step, {"step": step})[name] = value
    return [rows[step] for step in sorted(rows)]


def number(value: Any) -> float | None:
    """A number or its text, NaN and infinity among them; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def json_object(line: str | bytes) -> dict[str, Any] | None:
    """The object that a line holds, if it holds one."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_of(path: Path) -> str:
    """The text of a log, whatever its bytes, with the ends of progress bars as ends of lines."""
    return path.read_text(encoding="utf-8-sig", errors="replace").replace("\r", "\n")


def _plain(key: Any) -> str:
    """Without the name of a run before it (W&B charts), slashes, dots and capitals."""
    name = str(key).rpartition(" - ")[2]
    return re.sub(r"[/.\s-]+", "_", name.strip()).lower()


def _is_evaluation(key: str) -> bool:
    return key.startswith("eval_") and key.endswith("loss")


def _names(count: Mapping[str, int]) -> dict[str, str]:
    """Name in the log -> a Trainer's name, for what is used of it."""
    found: dict[str, str] = {}
    for wanted, known in (
        ("step", STEPS),
        ("epoch", _EPOCHS),
        ("learning_rate", (*_RATES, *(key for key in count if key.startswith("lr_")))),
        ("grad_norm", _NORMS),
    ):
        if chosen := next((name for name in known if name in count), None):
            found[chosen] = wanted
    training = [name for name in _TRAINING if name in count]
    often = [name for name in training if count[name] > 1]
    if often or training:
        found[(often or training)[0]] = "loss"
    turned = {key: f"{match[1]}_loss" for key in count if (match := _TURNED.fullmatch(key))}
    parts = [
        part for part in _HELD_OUT
        if any((match := _EVALUATION.fullmatch(turned.get(key, key))) and match["part"] == part
               for key in count)
    ]  # fmt: skip
    for key in count:
        if match := _EVALUATION.fullmatch(turned.get(key, key)):
            part = "" if match["part"] == parts[0] else match["part"]
            words = [word for word in (part, match["name"], match["loader"]) if word]
            found.setdefault(key, "_".join(["eval", *words, "loss"]))
        elif any(key.startswith(f"{part}_") for part in _HELD_OUT):
            score = re.sub(r"^acc$", "accuracy", key.partition("_")[2])
            found.setdefault(key, f"eval_{score}")
    return found


def _counted_from_zero(entries: list[dict[str, Any]]) -> bool:
    """Epochs that are counted from 0 are made shares of what is done, and steps counted from 1.

    Lightning and Keras number an epoch while it runs; a Trainer says how many are done. Returns
    whether it was so.
    """
    epochs = [entry["epoch"] for entry in entries if "epoch" in entry]
    whole = bool(epochs) and all(math.isfinite(one) and one == int(one) for one in epochs)
    if not whole or min(epochs) != 0:
        return False
    if not any("step" in entry for entry in entries):
        for entry in entries:
            if "epoch" in entry:
                entry["epoch"] += 1
                entry["step"] = entry["epoch"]
        return True
    _with_steps(entries)
    last: dict[float, float] = {}
    for entry in entries:
        if "epoch" in entry:
            last[entry["epoch"]] = max(last.get(entry["epoch"], 0), entry["step"])
    if last[0] == 0:
        return False
    before, longest = -1.0, 0.0
    starts: dict[float, tuple[float, float]] = {}
    for epoch in sorted(last):
        longest = max(longest, last[epoch] - before)
        starts[epoch] = (before, longest)
        before = last[epoch]
    for entry in entries:
        if "epoch" in entry:
            start, length = starts[entry["epoch"]]
            entry["epoch"] += (entry["step"] - start) / length
        entry["step"] += 1
    return True


def _with_steps(entries: list[dict[str, Any]]) -> None:
    """A step that is missing is that of the entry before, and where none is known its number."""
    known = any("step" in entry for entry in entries)
    step = 0.0
    for entry in entries:
        if known:
            step = entry.get("step", step)
        elif "loss" in entry:
            step += 1
        entry["step"] = step
