"""An option is called as the argument of the function that its command calls."""

import inspect
import sys

import pytest
import typer

import heldout
from heldout.cli.main import command_line, main
from heldout.cli.renamed import RENAMED, with_names_of_now

# What a command calls.
CALLED = {
    "fit": [heldout.fit, heldout.resume, heldout.dry_run],
    "check": [heldout.check],
    "diagnose": [heldout.diagnose, heldout.watch],
    "counterfactual": [heldout.counterfactual],
    "hyperfit": [heldout.hyperfit, heldout.resume],
    "ensemble": [heldout.ensemble],
    "distill": [heldout.distill],
    "recipe": [heldout.export_recipe],
    "push": [heldout.push, heldout.dry_run_push],
    "try": [heldout.answers],
    "merge": [heldout.merge],
    "laws": [heldout.laws, heldout.OwnRuns],
    "advise": [
        heldout.advise,
        heldout.Question,
        heldout.AskedModel,
        heldout.AskedData,
        heldout.Budget,
        heldout.OwnRuns,
    ],
    "capacity": [heldout.capacity],
    "compress": [heldout.compress],
}
OTHERWISE = {
    # How a result is told and what follows from it is the command line's own.
    "--json",
    "--fail-on",
    "--junit",
    "recipe --out",
    # Which function is called.
    "--resume",
    "--dry-run",
    "--watch",
    "--demo",
    "--judgements",
    # Short for a key of the recipe.
    "fit --minutes",
    "--tracker",
    "--learn-chosen",
    # A word of Python's own.
    "--for",
}


def commands():
    found = dict(typer.main.get_command(command_line()).commands)
    return {**found.pop("plan").commands, **found}


def options():
    return [
        (name, flag)
        for name, command in commands().items()
        if name in CALLED
        for each in command.params
        if each.param_type_name == "option"
        for flag in each.opts[:1]
    ]


def arguments(command):
    return {name for called in CALLED[command] for name in inspect.signature(called).parameters}


def plural(name):
    return f"{name[:-2]}es" if name.endswith("is") else f"{name}s"


def test_every_command_that_calls_a_job_is_compared():
    assert commands().keys() == {*CALLED, "report", "list"}


@pytest.mark.parametrize(("command", "flag"), options())
def test_an_option_is_called_as_its_argument(command, flag):
    """In the singular where it may be given again; ``--set`` gives ``settings``."""
    name = "settings" if flag == "--set" else flag.lstrip("-").replace("-", "_")
    known = arguments(command)
    if {flag, f"{command} {flag}"} & OTHERWISE:
        assert name not in known, f"{flag} needs no exception any more"
    else:
        assert {name, plural(name)} & known, f"{flag} of {command} is no argument"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("diagnose run --runs-of log.json --known=epochs=3", "--logs log.json --fact=epochs=3"),
        ("diagnose run --no-generation --rows 5", "--no-generate --most-rows 5"),
        ("check rows --list 5 -- --list", "--max-listed 5 -- --list"),
        ("plan laws runs.csv --parameters total", "--counted total"),
        ("plan advise --parameters 3e8", "--parameters 3e8"),
    ],
)
def test_names_from_before_still_work(before, now):
    words, told = with_names_of_now(before.split())
    assert " ".join(words).endswith(now)
    assert bool(told) == (" ".join(words) != before)


def test_every_name_of_now_is_an_option():
    for command, names in RENAMED.items():
        flags = {
            f for each in commands()[command].params for f in (*each.opts, *each.secondary_opts)
        }
        assert set(names.values()) <= flags
        assert not names.keys() & flags


def test_a_name_from_before_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heldout", "diagnose", "run", "--rows", "1"])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert "heldout: --rows is called --most-rows now, and goes in the next version." in error
    assert "heldout: --most-rows must be 2 or more, got 1." in error
