"""Tab completion, asked as the shells ask."""

import os
import subprocess
import sys

import pytest

from heldout.cli import completing
from heldout.core.discovery import entries_of
from heldout.core.recipe import recipe_names


def completed(line: str, shell: str = "bash") -> list[str]:
    """What the shell is given for a line whose last word is begun."""
    asked = {
        "_HELDOUT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
    }
    done = subprocess.run(
        [sys.executable, "-m", "heldout"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")


def test_bash_completes_commands_and_values():
    assert {"fit", "check", "diagnose"} <= set(completed("heldout "))
    assert completed("heldout fit --recipe lo")[0] == "lora"


def test_zsh_is_told_meanings():
    (told,) = [line for line in completed("heldout fit --set train.sche", "zsh") if "sched" in line]
    assert "train.schedule=" in told
    assert "learning rate" in told


def test_the_script_for_a_shell_calls_heldout():
    asked = os.environ | {"_HELDOUT_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "heldout"], env=asked, capture_output=True, text=True
    )
    assert "_HELDOUT_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("found", "begun", "expected"),
    [
        (completing.recipes, "", recipe_names()),
        (completing.recipes, "lo", ["lora"]),
        (completing.trackers, "t", ["tensorboard", "trackio"]),
        (completing.settings, "train.optimizer=", ["adamw", "schedule_free"]),
        (completing.settings, "train.seed=", []),
        (completing.settings, "nothing.at.all", []),
        (completing.settings, "nothing.at=", []),
        (completing.settings, "regularizers.sam", ["", ".radius"]),
        (completing.settings, "regularizers.sam=", ["true", "false"]),
        (completing.catalog, "train.sch", ["train.schedule"]),
        (completing.catalog, "goldf", ["goldfish"]),
    ],
)
def test_names_that_go_on(found, begun, expected):
    names = [name for name, _ in found(begun)]
    if found is completing.settings and "." in "".join(expected):
        assert {f"{begun}{each}=" for each in expected} <= set(names)
    elif found is completing.settings:
        assert [name.partition("=")[2] for name in names] == expected
    else:
        assert names == expected


def test_every_key_and_technique_is_offered():
    keys = {name for name, _ in completing.settings("")}
    assert {"train.max_epochs=", "data.group=", "eval.metric="} <= keys
    for entry in entries_of("regularizer"):
        assert f"regularizers.{entry.name}=" in keys


def test_completion_needs_no_torch():
    code = (
        "import sys; from heldout.cli import completing as c\n"
        "c.recipes(''); c.catalog(''); c.settings('regularizers.sam.')\n"
        "bad = {'torch', 'transformers'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
