"""Run folders with damaged files: a page that names them, or one line."""

import json
import re

import pytest

from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe import DataSection, Recipe, load_recipe
from heldout.core.run import Run
from heldout.data.conversation import SPEAKERS
from heldout.data.json_rows import _not_json
from heldout.data.layout import find_layout
from heldout.jobs.counterfactual.counterfactual import counterfactual
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.exporting.export_recipe import export_recipe
from heldout.jobs.fitting.fit import resume
from heldout.jobs.report import write_report

DEEP = "[" * 100_000
LONG = "1" * 5_000
DAMAGE = {
    "an array": ("environment.json", "[]"),
    "deep": ("environment.json", DEEP),
    "long number": ("environment.json", LONG),
    "openings": ("data/test_openings.jsonl", "[1]\n"),
    "deep openings": ("data/test_openings.jsonl", DEEP + "\n"),
    "rows": ("data.json", '{"rows": [1], "dropped": 3}'),
    "status": ("result.json", "[[1, 2]]"),
    "history": ("history.jsonl", "[1]\n"),
    "deep history": ("history.jsonl", DEEP + "\n"),
    "deep recipe": ("recipe.toml", "a = " + DEEP),
    "long number in a recipe": ("recipe.toml", f"train.seed = {LONG}"),
}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Recipe())


@pytest.mark.parametrize(("name", "text"), DAMAGE.values(), ids=DAMAGE)
def test_the_page_names_what_is_damaged(name, text, run):
    run.path(name).write_text(text)
    page = write_report([run.folder]).read_text(encoding="utf-8")
    assert "Could not be read and is left out" in page
    assert name in page


MORE = {
    "cut": ("data.json", '{"mode": "sp'),
    "without its figures": ("result.json", "{}"),
    "a number": ("measurements.json", "7"),
    "an object": ("samples.json", "{}"),
    "without steps": ("history.jsonl", '{"epoch": 1}\n'),
}


@pytest.mark.parametrize(("name", "text"), [*DAMAGE.values(), *MORE.values()], ids=DAMAGE | MORE)
def test_what_goes_on_from_it_is_refused_by_name(name, text, run):
    run.write_json("environment.json", {"model": "package:heldout"})
    run.write_json("result.json", {"best_step": 1, "best_epoch": 1.0, "learning_rate": 1e-3})
    run.best.mkdir()
    run.path(name).write_text(text)
    for command in (
        lambda: resume(run.folder),
        lambda: counterfactual(run.folder),
        lambda: diagnose(run.folder),
        lambda: export_recipe(run.folder, "trl"),
    ):
        with pytest.raises(UserError, match=re.escape(name.split("/")[-1])):
            command()


def test_rows_and_losses_that_are_damaged_are_named(run):
    run.path("data/train.jsonl").write_text('{"text": "one", "index": 0, "group": "0"}\n{"text')
    with pytest.raises(UserError, match=r"data/train\.jsonl line 2 is damaged"):
        list(run.read_rows("train"))
    run.path("evaluations/best-test.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"best-test\.npz is damaged"):
        run.losses("best", "test")


def test_a_status_that_is_damaged_is_one_line(run):
    run.path("status.json").write_text(DEEP)
    with pytest.raises(UserError, match=r"status\.json is damaged"):
        write_report([run.folder])


@pytest.mark.parametrize("text", ["a = " + DEEP, f"train.seed = {LONG}"])
def test_a_recipe_of_such_a_kind_is_one_line(text, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"recipe\.toml cannot be read"):
        load_recipe(path)
    with pytest.raises(UserError, match=r"train\.seed must be a whole number"):
        load_recipe("default", [f"train.seed={LONG}"])


def test_words_that_help():
    with pytest.raises(ValueError) as error:
        json.loads(LONG)
    assert _not_json(error.value) == "not JSON (a number has too many digits)"
    assert "human" in did_you_mean("humann", list(SPEAKERS))
    assert did_you_mean("martian", list(SPEAKERS)).startswith(". Known: ")
    assert str(UserError("a\x1b[31mb: no such file")) == "a\\x1b[31mb: no such file"
    with pytest.raises(UserError, match="The name of the data is empty"):
        find_layout("", DataSection())
    assert str(UserError("m: it is missing.. Give it.")) == "m: it is missing. Give it."
    assert str(UserError('It says "no".. Wait ... see ../a and b/.. now')) == (
        'It says "no".. Wait ... see ../a and b/.. now'.replace('".. W', '". W')
    )
