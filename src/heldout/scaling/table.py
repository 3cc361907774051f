"""Runs read from a CSV file: columns recognized or mapped, units said, bad input refused."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heldout.core.csv_rows import BrokenCsv, csv_rows
from heldout.core.errors import UserError, did_you_mean
from heldout.scaling import table_faults as faults
from heldout.scaling.diverged import diverged_notes
from heldout.scaling.runs import Runs

TOTAL, NON_EMBEDDING = "total", "non-embedding"
COUNTS = (TOTAL, NON_EMBEDDING)
NATS, BITS_PER_BYTE = "nats-per-token", "bits-per-byte"
PERPLEXITY = "perplexity"  # of a token; its logarithm is taken
LOSS_UNITS = (NATS, BITS_PER_BYTE, PERPLEXITY)

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
_Line = tuple[int, dict[str, str]]  # a row with its line number


@dataclass(frozen=True)
class RunTable:
    """Runs with what their numbers mean: columns used, how N was counted, unit of the loss."""

    path: str
    runs: Runs
    columns: dict[str, str]
    counted: str  # total, non-embedding, or "" where nobody said
    loss_unit: str
    notes: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()  # of the runs, in the file


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
    _one_of("--counted", counted, COUNTS)
    _one_of("--loss-unit", loss_unit, LOSS_UNITS)
    header, rows = _rows(path)
    rows = _kept_rows(header, rows, where)
    if not rows:
        raise UserError(f"{path} has no runs{' that --where keeps' if where else ''}.")
    mapped = _mapping(header, columns, counted)
    names = {role: name for role, (name, _) in mapped.items()}
    numbers: dict[str, np.ndarray] = {
        role: _numbers(path, rows, *mapped[role], role)
        for role in ("N", "D", "U", "epochs", "C", "loss")
        if role in mapped
    }
    notes: list[str] = []
    if loss_unit == PERPLEXITY:
        numbers["loss"] = _logarithms(path, names["loss"], numbers["loss"], notes)
        loss_unit = NATS
        names["loss"] = f"ln {names['loss']}"
    D = _tokens_seen(numbers, names, notes)
    U = _unique_tokens(numbers, D, notes)
    unit = loss_unit or (BITS_PER_BYTE if _says_bits(names["loss"]) else NATS)
    if unit == NATS and "tokenizer" in names:
        _refuse_several_tokenizers(path, rows, names["tokenizer"])
    groups = _groups(rows, names["group"], notes) if "group" in names else None
    counted = counted or _says_counted(names["N"])
    if not counted:
        notes.append(
            f"It is not said whether N, column {names['N']!r}, counts embeddings; the best tokens "
            "per parameter depend on it. Say --counted total or --counted non-embedding."
        )
    runs = Runs(numbers["N"], D, U, numbers["loss"], groups)
    faults.refuse_units(str(path), names, runs, unit)
    notes += faults.unit_notes(names, runs, unit)
    if groups is None:
        used = [name for role, name in names.items() if role != "group"]
        notes += faults.mixed_notes(str(path), [row for _, row in rows], used, runs)
    lines = tuple(line for line, _ in rows)
    notes += diverged_notes(lines, runs)
    return RunTable(str(path), runs, names, counted, unit, tuple(notes), lines)


def _tokens_seen(
    numbers: dict[str, np.ndarray], names: dict[str, str], notes: list[str]
) -> np.ndarray:
    if "D" in numbers:
        return numbers["D"]
    notes.append(f"Tokens were taken from compute, D = C / (6 N), column {names['C']!r}.")
    return numbers["C"] / (6 * numbers["N"])


def _unique_tokens(numbers: dict[str, np.ndarray], D: np.ndarray, notes: list[str]) -> np.ndarray:
    if "U" in numbers:
        return numbers["U"]
    if "epochs" in numbers:
        notes.append("Unique tokens were taken as tokens over epochs.")
        return D / np.maximum(numbers["epochs"], 1)
    notes.append("No column of unique tokens or epochs: every token counts as new.")
    return D


def _logarithms(path: Path, name: str, values: np.ndarray, notes: list[str]) -> np.ndarray:
    if values.min() <= 1:
        raise UserError(
            f"{path}: column {name!r} holds {values.min():.4g}, and a perplexity is above 1."
        )
    notes.append(f"The loss is the logarithm of the perplexity, column {name!r}.")
    return np.log(values)


def _groups(rows: Sequence[_Line], name: str, notes: list[str]) -> np.ndarray | None:
    """What is resampled as a whole, where a run has several rows."""
    labels = np.array([row[name] for _, row in rows])
    num_runs = np.unique(labels).size
    if num_runs == len(labels):
        return None
    notes.append(
        f"{num_runs} runs by {name!r} give {len(labels)} points: whole runs are resampled."
    )
    return labels


def _refuse_several_tokenizers(path: Path, rows: Sequence[_Line], name: str) -> None:
    kinds = sorted({row[name].strip() for _, row in rows})
    if len(kinds) > 1:
        raise UserError(
            f"{path}: nats per token of {len(kinds)} tokenizers ({', '.join(kinds[:3])}) "
            "cannot be compared. Give bits per byte, or keep one with "
            f"--where {name}={kinds[0]}."
        )


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value and value not in known:
        raise UserError(f"{option} must be one of {', '.join(known)}, got {value!r}.")


def _rows(path: Path) -> tuple[list[str], list[_Line]]:
    """Column names and the rows."""
    if not path.is_file():
        raise UserError(f"There is no file {path}: give a CSV file with one run a line.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            read = list(csv_rows(file))
    except (UnicodeDecodeError, BrokenCsv) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}.") from None
    header = read[0].cells if read else []
    rows = []
    for row in read[1:]:
        if row.cells and len(row.cells) != len(header):
            raise UserError(
                f"{path} line {row.last_line}: not as many fields as the {len(header)} columns."
            )
        if row.cells:
            rows.append((row.last_line, dict(zip(header, row.cells, strict=True))))
    return header, rows


def _kept_rows(header: list[str], rows: list[_Line], where: Sequence[str]) -> list[_Line]:
    for condition in where:
        name, _, value = condition.partition("=")
        name = name.strip()
        if name not in header:
            raise UserError(f"--where {condition}: no column {name!r}{did_you_mean(name, header)}")
        rows = [(line, row) for line, row in rows if row[name].strip() == value.strip()]
    return rows


def _mapping(
    header: list[str], columns: Sequence[str], counted: str
) -> dict[str, tuple[str, float]]:
    """Column and factor of each role: those that are named, then those that are recognized."""
    mapped = _named_columns(header, columns)
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


def _named_columns(header: list[str], columns: Sequence[str]) -> dict[str, tuple[str, float]]:
    """From ``ROLE=COLUMN`` or ``ROLE=COLUMN*FACTOR``."""
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
    return mapped


def _numbers(path: Path, rows: Sequence[_Line], name: str, factor: float, role: str) -> np.ndarray:
    values = []
    for line, row in rows:
        value = _number(row[name])
        if math.isnan(value) or math.isinf(value):
            raise UserError(
                f"{path} line {line}: column {name!r} must be a number, got {row[name]!r}. Fix "
                "or remove the line."
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
