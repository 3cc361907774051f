"""A new run that goes on from the model of an earlier one: what that one was trained and tested on.

A run that has ended has no optimizer to go on with, and its sealed test has been opened. So more
epochs, or more rows, are a new run from its ``best/``. Two things would make that one's figures
untrue: held-out rows that the model was trained on before, and an opened test that counts as new.
"""

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.kit.parts import Parts

_MODELS = ("best", "last", "fixed_epochs")  # folders of models in a run


@dataclass(frozen=True)
class EarlierRuns:
    """The run that a model comes from, and the one which that went on from, and so on."""

    model: str
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, model: str) -> "EarlierRuns":
        """Of a path or id; none for a model that is not of a run which lies here."""
        found: list[Run] = []
        name = model
        while (run := _run_of(name)) is not None and run not in found:
            found.append(run)
            name = str(run.read_json("environment.json").get("model", ""))
        return cls(model, tuple(found))

    def refuse_seen(self, parts: Parts) -> None:
        """UserError where held-out rows are among those that the model was trained on before."""
        is_split = parts.mode == "split"
        held_out = [*parts.validation, *parts.test] if is_split else parts.train
        kept = set(map(_digest, held_out))
        for run in self.runs:
            seen = kept.intersection(_digests(run, "train"))
            if not seen:
                continue
            if not is_split:
                raise UserError(
                    f"{self.model} was trained in {run.folder} on {len(seen)} of the "
                    f"{len(held_out)} rows, so that folds of them cannot judge it: start from its "
                    "base model."
                )
            data = run.path("data")
            given = [f"data.{part}={data}/{part}.jsonl" for part in ("validation", "test")]
            validation, test = map(shlex.quote, given)
            raise UserError(
                f"{self.model} was trained in {run.folder} on {len(seen)} of the {len(held_out)} "
                f"rows that are held out here: keep its parts, by --data {shlex.quote(str(data))} "
                "--set data.group=group, or, with more rows to train on, by "
                f"--set {validation} --set {test}"
            )

    def openings(self, parts: Parts) -> list[dict[str, str]]:
        """Openings so far of a test part that shares rows with this one, the oldest first."""
        sealed = set(map(_digest, parts.test))
        found = []
        for run in reversed(self.runs):
            if sealed.isdisjoint(_digests(run, "test")):
                continue
            for opening in run.test_openings:
                purpose = f"{run.folder.name}: {opening['purpose']}"
                found.append({**opening, "purpose": purpose})
        return list({tuple(each.items()): each for each in found}.values())


def _run_of(model: str) -> Run | None:
    path = Path(model).expanduser()
    if path.name not in _MODELS or not (path.parent / "data" / "train.jsonl").is_file():
        return None
    if not all((path.parent / name).is_file() for name in ("status.json", "environment.json")):
        return None
    return Run.open(path.parent)


def _digests(run: Run, part: str) -> Iterator[bytes]:
    """Of the rows of a part; hashing opens no seal."""
    if run.path(f"data/{part}.jsonl").is_file():
        yield from map(_digest, run.rows_to_hash(part))


def _digest(row: Row) -> bytes:
    return hashlib.sha256(" ".join(row.text.split()).encode()).digest()[:16]
