"""Runs read from a CSV file: columns recognized or mapped, units said, bad input refused."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heldout.core.errors import UserError, did_you_mean
from heldout.scaling.runs import Runs

TOTAL, NON_EMBEDDING = "total", "non-embedding"
COUNTS = (TOTAL, NON_EMBEDDING)
NATS, BITS_PER_BYTE = "nats-per-token", "bits-per-byte"
LOSS_UNITS = (NATS, BITS_PER_BYTE)

_NON_EMBEDDING = (
    "non_embedding_parameters",
    "non_embedding_params",
    "n_non_embedding",
    "n_no_embed",
    "params_no_embeds",
    "params_non_embedding",
)
_PARAMETERS = (
    "n",
    "n_params",
    "n_parameters",
    "num_params",
    "num_parameters",
    "params",
    "parameters",
    "total_params",
    "total_parameters",
    "params_active_precise",
    "model_size",
)
# Names in lower case with underscores; of several that are there, the first counts.
KNOWN: dict[str, tuple[str, ...]] = {
    "D": ("d", "d_tokens", "tokens", "tokens_seen", "total_tokens", "num_tokens", "train_tokens"),
    "U": ("u", "u_unique_tokens", "unique_tokens", "u_tokens", "unique", "num_unique_tokens"),
    "epochs": ("epochs", "num_epochs", "epoch"),
    "C": ("c", "flops", "flop", "compute", "c_flops", "training_flops"),
    "loss": (
        "loss",
        "val_loss",
        "validation_loss",
        "heldout_loss",
        "eval_loss",
        "final_loss",
        "test_loss",
        "bits_per_byte",
        "val_bpb",
        "bpb",
    ),
    "group": ("group", "run", "run_name", "run_id", "name"),
    "tokenizer": ("tokenizer", "tokeniser", "vocab", "vocabulary"),
}
ROLES = ("N", *KNOWN)


@dataclass(frozen=True)
class RunTable:
    """Runs with what their numbers mean: columns used, how N was counted, unit of the loss."""

    path: str
    runs: Runs
    columns: dict[str, str]
    counted: str  # total, non-embedding, or "" where nobody said
    loss_unit: str
    notes: tuple[str, ...] = ()


def read_runs(
    path: str | Path,
    *,
    columns: Sequence[str] = (),
    where: Sequence[str] = (),
    counted: str = "",
    loss_unit: str = "",
) -> RunTable:
    """One run a line. ``columns`` maps, as ``D=tokens_b*1e9``; ``where`` keeps ``column=value``.

    Unique tokens come from their column, or from tokens over epochs, or equal the tokens seen;
    tokens may come from compute as C / (6 N).
    """
    path = Path(path)
    _one_of("--parameters", counted, COUNTS)
    _one_of("--loss-unit", loss_unit, LOSS_UNITS)
    header, rows = _rows(path)
    for condition in where:
        name, _, value = condition.partition("=")
        name = name.strip()
        if name not in header:
            raise UserError(f"--where {condition}: no column {name!r}{did_you_mean(name, header)}")
        rows = [(line, row) for line, row in rows if row[name].strip() == value.strip()]
    if not rows:
        raise UserError(f"{path} has no runs{' that --where keeps' if where else ''}.")
    mapped = _mapping(header, columns, counted)
    factors = {role: factor for role, (_, factor) in mapped.items()}
    names = {role: name for role, (name, _) in mapped.items()}

    notes = []
    unit = loss_unit or (BITS_PER_BYTE if _says_bits(names["loss"]) else NATS)
    numbers = {
        role: _numbers(path, rows, names[role], factors[role], role)
        for role in ("N", "D", "U", "epochs", "C", "loss")
        if role in names
    }
    N = numbers["N"]
    D = numbers["D"] if "D" in numbers else numbers["C"] / (6 * N)
    if "D" not in numbers:
        notes.append(f"Tokens were taken from compute, D = C / (6 N), column {names['C']!r}.")
    if "U" in numbers:
        U = numbers["U"]
    elif "epochs" in numbers:
        U = D / np.maximum(numbers["epochs"], 1)
        notes.append("Unique tokens were taken as tokens over epochs.")
    else:
        U = D
        notes.append("No column of unique tokens or epochs: every token counts as new.")
    if (unit == NATS) and "tokenizer" in names:
        kinds = sorted({row[names["tokenizer"]].strip() for _, row in rows})
        if len(kinds) > 1:
            raise UserError(
                f"{path}: nats per token of {len(kinds)} tokenizers ({', '.join(kinds[:3])}) "
                "cannot be compared. Give bits per byte, or keep one with "
                f"--where {names['tokenizer']}={kinds[0]}."
            )
    groups = None
    if "group" in names:
        labels = np.array([row[names["group"]] for _, row in rows])
        if np.unique(labels).size < len(labels):
            groups = labels
            notes.append(
                f"{np.unique(labels).size} runs by {names['group']!r} give {len(labels)} points: "
                "whole runs are resampled."
            )
    counted = counted or _says_counted(names["N"])
    if not counted:
        notes.append(
            f"It is not said whether N, column {names['N']!r}, counts embeddings; the best tokens "
            "per parameter depend on it. Say --parameters total or --parameters non-embedding."
        )
    return RunTable(
        str(path), Runs(N, D, U, numbers["loss"], groups), names, counted, unit, tuple(notes)
    )


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value and value not in known:
        raise UserError(f"{option} must be one of {', '.join(known)}, got {value!r}.")


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names and, with their line numbers, the rows."""
    if not path.is_file():
        raise UserError(f"There is no file {path}: give a CSV file with one run a line.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}.") from None
    for line, row in rows:
        if None in row or None in row.values():
            raise UserError(f"{path} line {line}: not as many fields as the {len(header)} columns.")
    return header, rows


def _mapping(
    header: list[str], columns: Sequence[str], counted: str
) -> dict[str, tuple[str, float]]:
    """Column and factor of each role."""
    mapped: dict[str, tuple[str, float]] = {}
    for entry in columns:
        role, equals, rest = entry.partition("=")
        role = role.strip()
        if not equals or role not in ROLES:
            raise UserError(
                f"--column must be ROLE=COLUMN with a role of {', '.join(ROLES)}, got {entry!r}."
            )
        name, factor = rest.strip(), 1.0
        if name not in header and "*" in name:
            name, _, number = name.rpartition("*")
            name, factor = name.strip(), _number(number)
            if not factor > 0:
                raise UserError(f"--column {entry}: the factor must be a positive number.")
        if name not in header:
            raise UserError(f"--column {entry}: no column {name!r}{did_you_mean(name, header)}")
        mapped[role] = (name, factor)
    known = dict(KNOWN)
    known["N"] = _NON_EMBEDDING if counted == NON_EMBEDDING else _PARAMETERS + _NON_EMBEDDING
    if counted == NON_EMBEDDING:
        known["N"] += _PARAMETERS
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in header}
    for role, names in known.items():
        for name in names:
            if role not in mapped and name in plain:
                mapped[role] = (plain[name], 1.0)
    needed = {"N": "parameters", "loss": "held-out loss"}
    if "C" not in mapped:
        needed["D"] = "tokens seen"
    for role, words in needed.items():
        if role not in mapped:
            raise UserError(
                f"No column of {words} was recognized among {', '.join(header)}: name it with "
                f"--column {role}=COLUMN."
            )
    return mapped


def _numbers(path: Path, rows, name: str, factor: float, role: str) -> np.ndarray:
    values = []
    for line, row in rows:
        value = _number(row[name])
        if math.isnan(value) or math.isinf(value):
            raise UserError(
                f"{path} line {line}: column {name!r} must be a number, got {row[name]!r}. Mend "
                "it, or drop the line."
            )
        if value <= 0:
            what = "a loss" if role == "loss" else "a count"
            raise UserError(
                f"{path} line {line}: column {name!r} must be positive, {what} of {row[name]} "
                "cannot be."
            )
        values.append(value * factor)
    return np.array(values)


def _number(text: str) -> float:
    try:
        return float(text.strip().replace("_", ""))
    except ValueError:
        return math.nan


def _says_bits(name: str) -> bool:
    return "bpb" in name.lower() or "bits_per_byte" in name.lower()


def _says_counted(name: str) -> str:
    plain = name.lower().replace("-", "_")
    if plain in _NON_EMBEDDING or "no_embed" in plain or "non_embed" in plain:
        return NON_EMBEDDING
    return TOTAL if "total" in plain else ""
