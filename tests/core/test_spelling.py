"""Arguments in refusals, as whoever called spells them."""

import ast
import dataclasses
import inspect
import re
import sys
from pathlib import Path

import pytest
import typer

import heldout
from heldout.core import spelling
from heldout.core.public_names import homes
from heldout.core.spelling import ARGUMENTS, SAME, in_python

SOURCE = Path(heldout.__file__).parent
OF_OTHERS = {"--lang", "--adapter-path", "--save-path", "--safe", "--dynamo"}


@pytest.fixture
def from_python(monkeypatch):
    monkeypatch.setattr(spelling, "_in_flags", False)


def flags_said():
    """Flag -> a file that says it, of all texts outside the command line but docstrings."""
    found = {}
    for file in SOURCE.rglob("*.py"):
        if file.is_relative_to(SOURCE / "cli") or file.name == "spelling.py":
            continue
        tree = ast.parse(file.read_text())
        docs = {
            ast.get_docstring(n, clean=False)
            for n in ast.walk(tree)
            if hasattr(n, "body") and isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value):
                    if node.value not in docs:
                        found[flag.rstrip("-")] = file.name
    return found


def options():
    """Every flag of the command line."""
    from heldout.cli.main import command_line

    group, found = typer.main.get_command(command_line()), set()
    todo = [group]
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        found |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return found


def arguments():
    """Every name by which a public function takes something, or a public class holds it."""
    found = set()
    for name in homes():
        value = getattr(heldout, name)
        if inspect.isfunction(value):
            found |= set(inspect.signature(value).parameters)
        elif dataclasses.is_dataclass(value):
            found |= {field.name for field in dataclasses.fields(value)}
    return found


def test_every_flag_that_is_said_has_a_spelling_and_is_an_option():
    said, known = flags_said(), options()
    assert len(said) > 40
    for flag, file in said.items():
        if flag not in OF_OTHERS:
            assert flag in ARGUMENTS or flag in SAME, f"{file} says {flag}"
            assert flag in known, f"{file} says {flag}, which is no option"


def test_every_spelling_is_an_argument():
    known = arguments()
    for flag in SAME:
        assert flag[2:].replace("-", "_") in known, flag
    for flag, words in ARGUMENTS.items():
        name = re.match(r"\w+", words)[0]
        assert name in known or name in ("heldout", "train", "data"), flag
    assert not SAME & ARGUMENTS.keys()


@pytest.mark.parametrize(
    ("said", "python"),
    [
        ("--goal must be one of a, b.", "goal must be one of a, b."),
        (
            "Name them with --set data.validation=FILE --set data.test=FILE, or give more.",
            'Name them with settings=["data.validation=FILE", "data.test=FILE"], or give more.',
        ),
        ("none with --set search.ranges={}", 'none with settings=["search.ranges={}"]'),
        ("set --set x.y=[1, 2], or look.", 'set settings=["x.y=[1, 2]"], or look.'),
        ("say it: --set data.encoding=NAME.", 'say it: settings=["data.encoding=NAME"].'),
        ("use `heldout fit --resume RUN`.", "use `heldout fit --resume RUN`."),
        (
            "go on with heldout fit --resume r, or give unseen rows with --heldout.",
            "go on with heldout fit --resume r, or give unseen rows with heldout.",
        ),
        (
            "without --no-generate and --dynamo_backend",
            "without generate=False and --dynamo_backend",
        ),
        ("--set must be key=value, got 'x'.", "settings must be key=value, got 'x'."),
    ],
)
def test_a_sentence_in_python(said, python):
    assert in_python(said) == python


def test_the_library_and_the_command_line_say_the_same_in_their_words(
    from_python, monkeypatch, capsys
):
    with pytest.raises(heldout.UserError) as refused:
        heldout.diagnose("run", most_rows=1)
    assert str(refused.value) == "most_rows must be 2 or more, got 1."
    from heldout.cli.main import main

    monkeypatch.setattr(sys, "argv", ["heldout", "diagnose", "run", "--most-rows", "1"])
    with pytest.raises(SystemExit):
        main()
    assert "--most-rows must be 2 or more, got 1." in capsys.readouterr().err
    with pytest.raises(heldout.UserError, match=r"^goal must be one of"):
        heldout.diagnose("run", goal="fame")
