"""Hashes of what a run's report rests on, kept in ``hashes.json`` when it is written.

They tell that a file has changed since, by accident or by hand. They are no signature: who writes a
file can write its hash.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.run import Run

FILE = "hashes.json"
SCHEMA = "heldout.hashes/1"
# Weights are left out for their size, status.json and the openings of the seal since they go on.
_HASHED = ("report.html", "recipe.toml", "*.json", "*.jsonl", "data/*.jsonl", "evaluations/*")
_GO_ON = {FILE, "status.json", "data/test_openings.jsonl"}


@dataclass(frozen=True)
class Verified:
    """How many files have hashes, and the names of those that are other than they were."""

    num_files: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.changed or self.missing)


def write_hashes(run: Run, only: str = "") -> None:
    """SHA-256 of each file that is there; with ``only`` of that one, and the others as they were.

    A run without hashes, of an earlier version, is given none by the rewriting of one file.
    """
    if only and not run.path(FILE).is_file():
        return
    kept = _read(run) if only else {}
    names = [only] if only else _names(run)
    run.write_json(
        FILE,
        {"schema": SCHEMA, "sha256": kept | {name: file_sha256(run.path(name)) for name in names}},
    )


def verify(run: Run) -> Verified:
    """Compare the files with their hashes. Raises UserError where none were kept.

    Reading the rows of the test part to hash them opens no seal.
    """
    recorded = _read(run)
    missing = tuple(name for name in recorded if not run.path(name).is_file())
    changed = tuple(
        name
        for name, digest in recorded.items()
        if name not in missing and file_sha256(run.path(name)) != digest
    )
    return Verified(len(recorded), changed, missing)


def _read(run: Run) -> dict[str, str]:
    if not run.path(FILE).is_file():
        raise UserError(
            f"{run.folder} holds no {FILE}: its run has not ended, or an earlier version wrote it. "
            "There is nothing to compare with."
        )
    try:
        found = run.read_json(FILE)
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']!r}")
        return {
            str(name): str(digest)
            for name, digest in found["sha256"].items()
            if run.path(name).resolve().is_relative_to(run.folder.resolve())
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{run.folder}/{FILE} is damaged ({error}): there is nothing to compare with."
        ) from None


def _names(run: Run) -> list[str]:
    found = {
        file.relative_to(run.folder).as_posix()
        for pattern in _HASHED
        for file in run.folder.glob(pattern)
        if file.is_file()
    }
    return sorted(found - _GO_ON)


def file_sha256(path: Path) -> str:
    """Of a file of any size, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
