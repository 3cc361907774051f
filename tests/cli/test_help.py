"""Help of every command says all that its options say."""

import sys

import pytest
from typer.main import get_command

from heldout.cli.main import command_line, main


def commands():
    """Words on the command line -> what the parser knows of the command."""
    whole = get_command(command_line())
    found = {(name,): command for name, command in whole.commands.items()}
    found |= {("plan", name): each for name, each in found.pop(("plan",)).commands.items()}
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_loses_no_word(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["heldout", *words, "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    shown = " ".join(capsys.readouterr().out.split())
    command = commands()[words]
    said = {option.name: option.help for option in command.params if option.help}
    for name, text in {**said, "": command.help}.items():
        expected = " ".join(text.replace("\\[", "[").split())
        assert expected in shown, name
