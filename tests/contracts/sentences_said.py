"""Every English sentence that the code can show, read off its source.

An f-string counts as one sentence whose fields are ``{0}``, ``{1}`` ...; a page template as the
text between its tags. Left out: docstrings, errors, help texts, strings without two words, and
strings that are code, data or settings.
"""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from heldout.core.language import sentences

SOURCE = Path(__file__).parents[2] / "src" / "heldout"
# Where what people see is written. Errors are raised everywhere and stay English.
ROOMS = (
    "cli",
    "report",
    "jobs",
    "diagnosis",
    "scaling",
    "core",
    "data",
    "lm",
    "probes",
    "search",
    "training",
)
_NOT_SHOWN = {
    "Option",
    "Argument",
    "compile",
    "Typer",
    "TrainingDiverged",
    "Interrupted",
    "warn",
    "did_you_mean",
    "getLogger",
    "_fail",
    "cast",
    # Rules that an error quotes, names that are looked for in other text, files for programs.
    "FieldRule",
    "at_least",
    "require",
    "startswith",
    "filterwarnings",
    "info",
    "warning",
    "write_cases",
}
# Functions: what a page lets browsers do, and errors that are raised elsewhere.
_ERRORS_OF = ("_policy", "_refusal", "_how_to_go_on")
# Fields of a class that name a paper or a formula; a font; queries.
_NAMES = {"SOURCE", "READS", "COST", "FORMULA", "FONT", "source", "_SQL"}
# The model card, which is in English; modules whose strings are errors or parts of them; rows,
# and files for other tools.
_IN_ENGLISH = (
    "report/card.py",
    "report/card_settings.py",
    "core/shown.py",  # tags around what is said elsewhere
    *(f"core/{name}.py" for name in ("errors", "spelling", "recipe", "recipe_fields")),
    *(f"core/{name}.py" for name in ("discovery", "decoding", "run")),
    *(f"data/{name}.py" for name in ("columns", "glaive", "tools")),
    *(f"lm/{name}.py" for name in ("adapter_weights", "chat_template", "fit_of_weights")),
    "lm/gguf_tokenizer.py",
    "jobs/merging/merged_rows.py",
    "data/canaries.py",
    "data/factbook.py",
    "jobs/exporting/",
)
# Names that are filled in later ("{role}"), settings ("vocab_size hidden_size"), options.
_CODE = re.compile(
    r".*(?<!%)\{[a-z_]+[,}].*|\w*_\w*(\s+\w*_\w*)*|--[\w-]+( and --[\w-]+)*", re.DOTALL
)
# A label and what it labels, a path or a figure, are looked up apart.
_LABEL = re.compile(r"(?<=\w) {2,}(?=\{)")
_TWO_WORDS = re.compile(r"[A-Za-z]{2,}.*\s.*[A-Za-z]{2,}", re.DOTALL)


def sentences_of_python() -> dict[str, list[str]]:
    """English to the places ``file:line`` that say it."""
    found: dict[str, list[str]] = {}
    for room in ROOMS:
        for file in sorted((SOURCE / room).rglob("*.py")):
            if file.relative_to(SOURCE).as_posix().startswith(_IN_ENGLISH):
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node, text in _strings(tree):
                place = f"{file.relative_to(SOURCE)}:{node.lineno}"
                for line in text.split("\n") if "%{" in text else [text]:  # shown over a figure
                    if _TWO_WORDS.search(line):
                        found.setdefault(line, []).append(place)
    return found


def _strings(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Strings outside docstrings, errors and help, each with its node."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.Compare):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.FunctionDef) and node.name in _ERRORS_OF:
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign) and _names(node) & _NAMES:
            continue
        if isinstance(node, ast.Call) and (_is_for_errors(node) or _is_replaced(node)):
            continue
        if isinstance(node, ast.Constant | ast.JoinedStr):
            for text in _LABEL.split(_template(node)):
                is_shown = _TWO_WORDS.search(text) and not _CODE.fullmatch(text)
                if is_shown and " et al. " not in text:  # a paper's name
                    yield node, text
            if isinstance(node, ast.JoinedStr):
                for part in node.values:
                    if isinstance(part, ast.FormattedValue):
                        yield from _choices(part.value)
            continue
        yield from _strings(node)


def _choices(node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """What a field of a sentence chooses between: ``"a" if x else "b"``."""
    if isinstance(node, ast.IfExp):
        for each in (node.body, node.orelse):
            if isinstance(each, ast.Constant | ast.JoinedStr):
                text = _template(each)
                if text and re.search("[A-Za-z]{2}", text):
                    yield each, text
            else:
                yield from _choices(each)
    else:
        yield from _strings(node)


def _template(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    parts, number = [], 0
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(part.value)
        else:
            parts.append(f"{{{number}}}")
            number += 1
    return "".join(parts)


def _names(assigned: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = assigned.targets if isinstance(assigned, ast.Assign) else [assigned.target]
    return {_name(target) for target in targets}


def _name(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _is_for_errors(call: ast.Call) -> bool:
    name = _name(call.func)
    return name in _NOT_SHOWN or name.endswith("Error")


def _is_replaced(call: ast.Call) -> bool:
    """``text.replace("old", "new")``, which shows neither."""
    return (
        _name(call.func) == "replace" and bool(call.args) and isinstance(call.args[0], ast.Constant)
    )


def sentences_of_templates() -> dict[str, list[str]]:
    """English to the page templates that say it."""
    found: dict[str, list[str]] = {}
    for file in sorted((SOURCE / "report" / "templates").glob("*.j2")):
        source = file.read_text(encoding="utf-8")
        source = re.sub(r"<(style|script)\b.*?</\1>", "", source, flags=re.DOTALL)
        source = re.sub(r"\{#.*?#\}", "", source, flags=re.DOTALL)
        source = re.sub(r"\{%.*?%\}", "\x00", source, flags=re.DOTALL)
        source = re.sub(r"\{\{.*?\}\}", "\x01", source, flags=re.DOTALL)
        reader = _Text()
        reader.feed(source)
        reader.close()
        for shown in reader.texts:
            for piece in shown.split("\x00"):
                first, *rest = " ".join(piece.split()).split("\x01")
                piece = first + "".join(f"{{{i}}}{text}" for i, text in enumerate(rest))
                is_markup = piece.startswith(("<", "class="))  # a tag with a condition in it
                if piece != "heldout" and not is_markup and re.search("[a-z]{2}", piece):
                    found.setdefault(piece, []).append(f"report/{file.name}")
    return found


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("aria-label", "alt", "title") and value:
                self.texts.append(value)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def sentences_of_rules() -> dict[str, list[str]]:
    """English to the tables of causes, kinds, remedies and advice that say it."""
    found: dict[str, list[str]] = {}
    tables = [*(SOURCE / "diagnosis").glob("*.toml"), *(SOURCE / "jobs").rglob("*.toml")]
    for file in sorted(tables):
        for text in _texts(tomllib.loads(file.read_text(encoding="utf-8"))):
            if _TWO_WORDS.search(text):
                first, *rest = re.split(r"\{[^{}]*\}", " ".join(text.split()))
                text = first + "".join(f"{{{i}}}{more}" for i, more in enumerate(rest))
                found.setdefault(text, []).append(str(file.relative_to(SOURCE)))
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in ("settings", "source"):
                yield from _texts(each)


@cache
def all_sentences() -> dict[str, list[str]]:
    """English to the places that say it, ends stripped as `heldout.core.language.say` does."""
    found: dict[str, list[str]] = {}
    for part in (sentences_of_python(), sentences_of_templates(), sentences_of_rules()):
        for english, places in part.items():
            found.setdefault(english.strip(), []).extend(places)
    return found


def unsaid(name: str) -> dict[str, list[str]]:
    """Sentences that the table of a language does not cover, with the places that say them."""
    known = sentences(name).entries
    return {text: places for text, places in all_sentences().items() if text not in known}


if __name__ == "__main__":  # sentences_said.py zh [report/ jobs/ ...]: what is missing, as TOML
    for text, places in unsaid(sys.argv[1]).items():
        if len(sys.argv) == 2 or places[0].startswith(tuple(sys.argv[2:])):
            print(f'{json.dumps(text, ensure_ascii=False)} = ""  # {places[0]}')
