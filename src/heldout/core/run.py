"""A run is a folder; everything after training can be recomputed from it."""

import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from heldout.core.errors import UserError
from heldout.core.files import LOCK, holds_files, remove
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.row import Row

LAYOUT = "heldout.run/1"
# What is there before environment.json, without which no run goes on.
_BEGINNING = {LOCK, "status.json", "recipe.toml", "checks.json", "data.json"} | {
    *("plan.json", "data", "checkpoints", "evaluations")
}


@dataclass(frozen=True)
class Run:
    """Paths and typed access; files are written whole or not at all."""

    folder: Path

    @classmethod
    def refuse_occupied(cls, folder: Path) -> None:
        """Raise UserError if something lies where a new run would be written.

        The beginning of a run that was killed before its rows were written is nothing.
        """
        if not folder.exists():
            return
        if not folder.is_dir() or (holds_files(folder) and not cls.is_cut_short(folder)):
            what = "another run" if (folder / "status.json").exists() else "files"
            raise UserError(
                f"Output folder {folder} holds {what}: give another --out, or --resume to go on. "
                "Nothing was written."
            )

    @classmethod
    def is_cut_short(cls, folder: Path) -> bool:
        """Whether a run was killed there before all that a resume needs was written."""
        if not (folder / "status.json").is_file() or (folder / "environment.json").exists():
            return False
        names = {path.name for path in folder.iterdir() if ".partial" not in path.name}
        try:
            return names <= _BEGINNING and cls.open(folder).status.get("state") == "started"
        except UserError:
            return False

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> "Run":
        """Start a run in a new or empty folder, or where one was cut short."""
        cls.refuse_occupied(folder)
        run = cls(folder)
        if cls.is_cut_short(folder):
            for path in list(folder.iterdir()):
                if path.name not in (LOCK, "status.json"):
                    remove(path)
        folder.mkdir(parents=True, exist_ok=True)
        # The status comes first: it says whose the rest is.
        run.write_json("status.json", _status("started", started=_now()))
        for name in ("data", "checkpoints", "evaluations"):
            (folder / name).mkdir(exist_ok=True)
        run.write_text("recipe.toml", recipe.to_toml())
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open an existing run; raises UserError if the folder is none or of another layout."""
        run = cls(folder)
        if not (folder / "status.json").is_file():
            raise UserError(f"{folder} is not a run of heldout: status.json is missing.")
        try:
            layout = run.read_json("status.json").get("layout")
        except (ValueError, AttributeError, RecursionError):
            raise UserError(f"{folder}/status.json is damaged: start the run anew.") from None
        if layout != LAYOUT:
            raise UserError(f"{folder} has layout {layout!r}; this version reads {LAYOUT!r}.")
        return run

    def refuse_own_code(self) -> None:
        """Raise UserError for a recipe that runs code of its own, which a stranger may have sent.

        Who resumes a run has not typed its settings.
        """
        if found := self.recipe.own_code:
            raise UserError(
                f"{self.folder}/recipe.toml has {' and '.join(found)}, which runs code that came "
                "with it: give --trust-code if it is yours, or you have read it."
            )

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.toml")

    @property
    def best(self) -> Path:
        return self.folder / "best"

    @property
    def last(self) -> Path:
        return self.folder / "last"

    def write_status(self, state: str, **details: Any) -> None:
        """``state``: started, training, interrupted, failed or complete."""
        old = self.read_json("status.json") if self.path("status.json").exists() else {}
        self.write_json("status.json", {**old, **_status(state, **details)})

    @property
    def status(self) -> dict[str, Any]:
        return self.read_json("status.json")

    def write_text(self, name: str, text: str) -> None:
        path = self.path(name)
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(path)

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def write_rows(self, part: str, rows: list[Row]) -> None:
        lines = (json.dumps(row.to_json(), ensure_ascii=False) for row in rows)
        self.write_text(f"data/{part}.jsonl", "".join(line + "\n" for line in lines))

    def read_rows(self, part: str) -> Iterator[Row]:
        """Rows of train or validation, one at a time; the test part has ``open_test``."""
        assert part != "test", "the sealed test part is read through open_test()"
        return self._rows(part)

    def open_test(self, purpose: str, *, once: bool = False) -> Iterable[Row]:
        """Break the seal: the opening is recorded before the first row is handed out.

        The rows can be gone through several times within one opening. ``once``: a stage of the run,
        which comes here again only where it was stopped before it had its figures; that goes on
        with the first opening and is no second look.
        """
        if once and any(opening["purpose"] == purpose for opening in self.test_openings):
            return _Rows(self, "test")
        if not self.path("data/test.jsonl").is_file():
            raise UserError(f"{self.path('data/test.jsonl')} is missing: put it back.")
        with self.path("data/test_openings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": _now(), "purpose": purpose}) + "\n")
        return _Rows(self, "test")

    def rows_to_hash(self, part: str) -> Iterator[Row]:
        """Rows of any part, to tell whether others are the same: that opens no seal."""
        return self._rows(part)

    def words_for_more(self) -> str:
        """How to train on where the run has ended."""
        place = shlex.quote(str(self.best))
        data = shlex.quote(str(self.path("data")))
        return (
            f"{self.folder} has ended: to train on, begin a new run with its best checkpoint, by "
            f"`heldout fit --model {place} --data {data} --set data.group=group` and your settings."
        )

    @property
    def test_openings(self) -> list[dict[str, str]]:
        path = self.path("data/test_openings.jsonl")
        return _read_lines(path) if path.exists() else []

    def append_history(self, entry: dict[str, Any], name: str = "history.jsonl") -> None:
        with self.path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def history(self, name: str = "history.jsonl") -> list[dict[str, Any]]:
        """Evaluations so far, of the run or of ``control_history.jsonl``."""
        path = self.path(name)
        return _read_lines(path) if path.exists() else []

    def truncate_history(self, step: int, name: str = "history.jsonl") -> None:
        """Forget what came after ``step``: a resumed run measures it again."""
        kept = [entry for entry in self.history(name) if entry["step"] <= step]
        self.write_text(name, "".join(json.dumps(entry) + "\n" for entry in kept))

    def losses(self, model: str, part: str) -> DocumentLosses | None:
        path = self.path(f"evaluations/{model}-{part}.npz")
        try:
            return DocumentLosses.load(path) if path.exists() else None
        except (ValueError, KeyError, EOFError, BadZipFile):
            raise UserError(f"{path} is damaged: put it back, or start a new run.") from None

    def save_losses(self, model: str, part: str, losses: DocumentLosses) -> None:
        losses.save(self.path(f"evaluations/{model}-{part}.npz"))

    def _rows(self, part: str) -> Iterator[Row]:
        path = self.path(f"data/{part}.jsonl")
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = Row.from_json(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    raise UserError(
                        f"{path} line {number} is damaged: put the file back as it was, or start "
                        "a new run."
                    ) from None
                yield row


@dataclass(frozen=True)
class _Rows:
    run: Run
    part: str

    def __iter__(self) -> Iterator[Row]:
        return self.run._rows(self.part)


def _status(state: str, **details: Any) -> dict[str, Any]:
    return {"layout": LAYOUT, "state": state, "updated": _now(), **details}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: a kill may have cut the last one short."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
