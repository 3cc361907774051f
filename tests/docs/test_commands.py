"""Commands stand in the documentation as they can be typed; those that cost little are run."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from heldout.cli.main import _language, command_line, main
from heldout.core.recipe import load_recipe

ROOT = Path(__file__).parents[2]
FOLDERS = (".", "docs", "docs/decisions", "experiments/*", "examples/*")
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.M | re.S)
# Answered in seconds where the files lie that they name.
CHEAP = (
    "heldout --version",
    "heldout list",
    "heldout check train.jsonl --heldout validation.jsonl",
    "heldout plan advise",
    "heldout plan laws",
    "heldout recipe lora",
)
DEAR = ("--measure", "--semantic", "RUNS.csv")  # the last stands for any file


def commands():
    """Each line of a code block that calls heldout, without its comment, with its page."""
    found = {}
    for folder in FOLDERS:
        for page in sorted(ROOT.glob(f"{folder}/*.md")):
            for block in BLOCK.findall(page.read_text(encoding="utf-8")):
                for line in block.replace("\\\n", " ").splitlines():
                    if re.match(r"(\.venv/bin/)?heldout\s", line.strip()):
                        words = shlex.split(line, comments=True)
                        found.setdefault(" ".join(["heldout", *words[1:]]), (words[1:], page.name))
    return found


COMMANDS = commands()


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--install" not in line])
def test_a_command_is_one_that_there_is(line):
    words, page = COMMANDS[line]
    _, words = _language(words)
    command = get_command(command_line())
    context = command.make_context("heldout", list(words))
    while hasattr(command, "commands") and context.args + context._protected_args:
        rest = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)
        assert command is not None, page
        context = command.make_context(name, list(words), parent=context)
    given = context.params
    if given.get("settings"):
        recipe = given.get("recipe") or "default"
        load_recipe(recipe, given["settings"])


@pytest.fixture
def desk(tmp_path, monkeypatch, tiny_model_dir, english_text):
    """A folder with the files by the names that the pages give them."""
    monkeypatch.chdir(tmp_path)
    texts = [text for text in english_text.split("\n\n") if len(text) > 100]
    Path("D").mkdir()
    for name, part in (("train", slice(40)), ("validation", slice(40, 60)), ("D/rows", slice(40))):
        lines = (json.dumps({"text": text[:200]}) for text in texts[part])
        Path(f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("M", "MODEL"):
        Path(name).symlink_to(tiny_model_dir)
    runs = [
        f"{n:g},{d:g},{1.7 + 400 / n**0.34 + 410 / d**0.28}"
        for n in (1e7, 3e7, 1e8, 3e8, 1e9)
        for d in (1e8, 3e8, 1e9, 3e9, 1e10)
    ]
    Path("runs.csv").write_text("\n".join(["total_parameters,tokens,loss", *runs]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        line
        for line in COMMANDS
        if line.startswith(CHEAP) and not any(each in line for each in DEAR)
    ],
)
def test_a_command_that_costs_little_runs(line, desk, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heldout", *COMMANDS[line][0]])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert said.out.strip()
