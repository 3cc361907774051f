"""``heldout report --verify``: what has changed in a run since its report was written."""

import json
import subprocess
import sys

import pytest

from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.recipe import load_recipe
from heldout.core.run import Run
from heldout.jobs.kit.hashes import verify, write_hashes
from heldout.jobs.report import write_report


@pytest.fixture
def run(tmp_path):
    """A run with the files that a report rests on."""
    run = Run.create(tmp_path / "mine", load_recipe("default"))
    for name in ("data/train.jsonl", "data/test.jsonl", "verdict.json", "measurements.json"):
        run.write_text(name, f"what {name} holds\n")
    run.write_text("data/test_openings.jsonl", "")
    run.path("evaluations/best-test.npz").write_bytes(b"losses")
    run.write_text("report.html", "<p>")
    write_hashes(run)
    return run


def called(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["heldout", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_what_nobody_touched_holds(run, monkeypatch, capsys):
    assert verify(run).holds
    assert called(monkeypatch, "report", "--verify", run.folder) == 0
    assert "all 7 files are as they were written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["data/test.jsonl", "verdict.json", "report.html", "evaluations/best-test.npz"]
)
def test_what_has_changed_is_named_with_exit_code_1(run, name, monkeypatch, capsys):
    with run.path(name).open("ab") as file:
        file.write(b" ")
    assert verify(run).changed == (name,)
    assert called(monkeypatch, "report", "--verify", run.folder) == 1
    told = capsys.readouterr().out
    assert f"{name} has changed since the report was written." in told
    assert called(monkeypatch, "report", "--verify", "--json", run.folder) == 1
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["holds"], found["changed"], found["missing"]) == (False, [name], [])


def test_what_is_missing_is_named(run):
    run.path("measurements.json").unlink()
    assert verify(run).missing == ("measurements.json",)


def test_opening_the_seal_again_and_a_new_state_are_no_change(run):
    run.open_test("diagnose")
    run.write_status("complete")
    assert verify(run).holds


def test_a_run_without_hashes_is_one_line_and_exit_code_2(run, monkeypatch, capsys):
    run.path("hashes.json").unlink()
    assert called(monkeypatch, "report", "--verify", run.folder) == 2
    told = capsys.readouterr().err
    assert "holds no hashes.json" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("broken", ["{", "[]", '{"schema": "else", "sha256": {}}', '{"sha256": 3}'])
def test_broken_hashes_are_one_line(run, broken):
    run.write_text("hashes.json", broken)
    with pytest.raises(UserError, match=r"hashes\.json is damaged"):
        verify(run)


def test_a_page_that_is_written_again_is_the_one_that_counts(run):
    run.write_text("verdict.json", "{}\n")
    run.write_text("report.html", "<b>")
    write_hashes(run, only="report.html")
    assert verify(run).changed == ("verdict.json",)


def test_writing_a_page_again_hides_no_older_change(tmp_path):
    run = Run.create(tmp_path / "mine", load_recipe("default"))
    write_report([run.folder])
    assert not run.path("hashes.json").exists()
    write_hashes(run)
    run.write_text("recipe.toml", run.path("recipe.toml").read_text() + "\n")
    run.write_text("report.html", "other")
    write_report([run.folder])
    assert verify(run).changed == ("recipe.toml",)


def test_verifying_imports_neither_torch_nor_a_page(run):
    code = (
        "import sys; from heldout.cli.main import main\n"
        f"sys.argv = ['heldout', 'report', '--verify', {str(run.folder)!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
