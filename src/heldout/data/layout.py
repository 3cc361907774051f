"""Which files a source is made of, and which of them are which part of a split that is ready."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.core.row import PARTS, Part
from heldout.data.dataset_info import NAME as DATASET_INFO
from heldout.data.dataset_info import is_dataset_info, listed_set
from heldout.data.encoding import TextFile
from heldout.data.files import READERS, suffix_of
from heldout.data.json_rows import keys_of_parts
from heldout.data.record import Broken
from heldout.data.split_names import is_split, part_named, parts_of_names, with_eval

Kind = Literal["tables", "texts", "saved"]  # saved: by datasets.save_to_disk
Wanted = Literal["train", "heldout"]
_NO_ROWS = {
    DATASET_INFO,
    "dataset_infos.json",
    "state.json",
    "dataset_dict.json",
    "test_openings.jsonl",
}


@dataclass(frozen=True)
class PartFiles:
    """What holds the rows of one part, or of a source that is not divided."""

    name: str  # as errors call it
    files: tuple[Path, ...]
    folder: Path | None = None  # that files are named inside of; None for a single file
    kind: Kind = "tables"
    key: str = ""  # of a JSON object of parts
    convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def inside(self, path: Path) -> str:
        """The name of a file inside the folder; empty for a single file."""
        return "" if self.folder is None else path.relative_to(self.folder).as_posix()

    def full_name(self, path: Path) -> str:
        """The name of a file as errors call it."""
        return self.name if self.folder is None else f"{self.name.rstrip('/')}/{self.inside(path)}"


@dataclass(frozen=True)
class Layout:
    """A source on disk: one part under ``train`` where no split is ready."""

    name: str  # as the user gave it
    parts: Mapping[Part, PartFiles]
    unread: tuple[str, ...] = ()  # files inside the folder that are not read
    origin: str = ""  # what told where the rows are, if anything did

    @property
    def is_split(self) -> bool:
        return is_split({part: [files.name] for part, files in self.parts.items()})

    def part_for(self, wanted: Part | Wanted) -> Part:
        """The part that is read where one is wanted to train on, or to measure on."""
        if not self.is_split:
            return "train"
        if wanted == "heldout":
            return "test" if "test" in self.parts else "validation"
        return wanted

    def notes(self) -> list[str]:
        """Sentences on what is read as what, and what is not read."""
        found = [self.origin] if self.origin else []
        if self.is_split:
            words = [f"{_some(part.files, part)} for {name}" for name, part in self.parts.items()]
            found.append(f"{self.name} holds a split that is ready: {', '.join(words)}.")
        if self.unread:
            found.append(f"Not read in {self.name}: {_listed(self.unread)}.")
        return found


def _some(files: tuple[Path, ...], part: PartFiles) -> str:
    if part.key:
        return f'"{part.key}"'
    return _listed([part.inside(file) for file in files])


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 5 else ""
    return ", ".join(names[: 4 if more else 5]) + more


def find_layout(source: str | Path, data: DataSection) -> Layout | None:
    """What a path is made of; None where there is no such path.

    In a folder all files of known kinds are read, subfolders too, in the order of their names,
    hidden ones aside; of texts, each file is one document. Raises UserError for a folder without
    such files, or with texts and tables.
    """
    name = str(source)
    if not name:
        raise UserError("The name of the data is empty: give a file, a folder or a Hub id.")
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path, name, data)
    if path.is_file():
        return _of_listed(path, "", name, data) or _of_file(path, name, data)
    if path.exists():
        raise UserError(f"{name} is no file or folder that can be read.")
    folder, _, wanted = name.rpartition(":")
    if folder and (listed := Path(folder).expanduser()).exists():
        return _of_listed(
            listed / DATASET_INFO if listed.is_dir() else listed, wanted, folder, data
        )
    return None


def holds_split(source: str | Path, data: DataSection) -> bool:
    """Whether a source brings rows to train on and rows that are held out."""
    layout = find_layout(source, data)
    return layout is not None and layout.is_split


def _of_file(path: Path, name: str, data: DataSection) -> Layout:
    whole = PartFiles(name, (path,))
    if suffix_of(path) not in (".json", ".jsonl", ".ndjson"):
        return Layout(name, {"train": whole})
    try:
        keys = keys_of_parts(TextFile(path, name, data, only_unicode=True))
    except Broken:  # told where the rows are read
        keys = []
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}.") from None
    members: dict[str, list[str]] = {}
    for key in keys:
        members.setdefault(part_named(key), []).append(key)
    found = with_eval(members)
    if not is_split(found):
        return Layout(name, {"train": whole})
    return Layout(
        name, {part: replace(whole, key=found[part][0]) for part in PARTS if part in found}
    )


def _of_listed(path: Path, wanted: str, name: str, data: DataSection) -> Layout | None:
    """A data set of LLaMA-Factory's list; None where the file is no such list."""
    if path.name != DATASET_INFO or not path.is_file() or not is_dataset_info(path):
        return None
    own, listed = listed_set(path, wanted, name)
    found = find_layout(listed.path, data)
    assert found is not None
    parts = {part: replace(files, convert=listed.convert) for part, files in found.parts.items()}
    origin = f"{path} says that {own!r} is {listed.path.name}, and what its columns are."
    return replace(found, parts=parts, origin=origin)


def _of_folder(folder: Path, name: str, data: DataSection) -> Layout:
    if (folder / "dataset_dict.json").is_file():
        return _of_dataset_dict(folder, name)
    if (folder / "state.json").is_file() and next(folder.glob("*.arrow"), None):
        return Layout(name, {"train": _saved(folder, name)})
    if listed := _of_listed(folder / DATASET_INFO, "", name, data):
        return listed
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    shown = [path for path in paths if not _is_hidden(path, folder)]
    files = [path for path in shown if suffix_of(path) in READERS and path.name not in _NO_ROWS]
    if not files:
        raise UserError(f"Folder {name} holds no file with a known ending: {', '.join(READERS)}.")
    texts = [path for path in files if suffix_of(path) == ".txt"]
    names = [path.relative_to(folder).as_posix() for path in files]
    found = parts_of_names(names, are_texts=len(texts) == len(files))
    if not found and 0 < len(texts) < len(files):
        other = next(path for path in files if path not in texts)
        raise UserError(
            f"Folder {name} holds both texts ({texts[0].name}) and tables ({other.name}): keep one "
            "kind in it, or name the file."
        )
    if not found and _is_clean_copy(folder):
        found = {"train": ["train.jsonl"]}
    if not found:
        found = {"train": names}
    read = {inside for members in found.values() for inside in members}
    parts = {
        part: _part_of(folder, name, found[part], is_split(found))
        for part in PARTS
        if part in found
    }
    unread = [path.relative_to(folder).as_posix() for path in shown]
    return Layout(name, parts, tuple(inside for inside in unread if inside not in read))


def _part_of(folder: Path, name: str, insides: list[str], of_split: bool) -> PartFiles:
    files = tuple(folder / inside for inside in insides)
    are_texts = all(suffix_of(file) == ".txt" for file in files)
    # train.txt holds many documents, a file of a folder of texts is one.
    single = of_split and len(files) == 1
    return PartFiles(name, files, folder, "texts" if are_texts and not single else "tables")


def _is_clean_copy(folder: Path) -> bool:
    """Written by ``heldout check --write-clean``, which keeps a log beside the rows."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("schema") == "heldout.clean/1"


def _of_dataset_dict(folder: Path, name: str) -> Layout:
    try:
        splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        members: dict[str, list[str]] = {}
        for split in splits:
            if part := part_named(split):
                members.setdefault(part, []).append(split)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{name}/dataset_dict.json must be as datasets writes it.") from None
    found = with_eval(members)
    if not is_split(found) and len(splits) > 1:
        raise UserError(
            f"{name} holds {', '.join(splits)}, none of which is known to be for training and for "
            f"testing: give one of them, as in {name}/{splits[0]}."
        )
    if not is_split(found):
        found = {"train": splits}
    parts = {
        part: _saved(folder / found[part][0], f"{name}/{found[part][0]}")
        for part in PARTS
        if part in found
    }
    read = {members[0] for members in found.values()}
    return Layout(name, parts, tuple(split for split in splits if split not in read))


def _saved(folder: Path, name: str) -> PartFiles:
    return PartFiles(name, tuple(sorted(folder.glob("*.arrow"))), folder, "saved")


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
