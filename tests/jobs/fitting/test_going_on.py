"""More epochs and more rows after a run has ended: a new run from its best checkpoint."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.run import Run
from heldout.jobs.fitting.fit import fit
from heldout.jobs.kit.earlier_run import EarlierRuns
from heldout.jobs.kit.parts import read_parts

SETTINGS = (
    "train.learning_rate=3e-3",
    "train.max_epochs=1",
    "eval.max_train_rows=8",
    "eval.max_recital_rows=8",
    "eval.num_samples=0",
    "eval.max_new_tokens=4",
    "data.max_length=32",
)


@pytest.fixture(scope="module")
def lines(data):
    return Path(data).read_text().splitlines()


@pytest.fixture(scope="module")
def first(tiny_model_dir, lines, tmp_path_factory):
    """A run of 130 rows that has ended."""
    folder = tmp_path_factory.mktemp("going on")
    (folder / "rows.jsonl").write_text("\n".join(lines[:130]))
    shares = ("data.validation_share=0.3", "data.test_share=0.3")
    rows, options = str(folder / "rows.jsonl"), [*SETTINGS, *shares]
    return fit(str(tiny_model_dir), rows, out=folder / "first", recipe="full", settings=options).run


def texts(run, part):
    rows = run.path(f"data/{part}.jsonl").read_text().splitlines()
    return {json.loads(row)["text"] for row in rows}


def refusal(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["heldout", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.slow
def test_more_epochs_keep_the_parts_and_count_the_opening(first, monkeypatch, capsys):
    line = refusal(
        monkeypatch, capsys, "fit", "--resume", str(first.folder), "--set", "train.max_epochs=9"
    )
    command = line.partition("`")[2].partition("`")[0]
    assert "has ended: to train on, begin a new run" in line
    monkeypatch.chdir(first.folder.parent)
    out = first.folder.with_name("second")
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    words = [*shlex.split(command), "--out", str(out), "--recipe", "full", *options]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    second = Run.open(out)
    for part in ("train", "validation", "test"):
        assert texts(second, part) == texts(first, part)
    purposes = [opening["purpose"] for opening in second.test_openings]
    assert purposes == ["first: losses of base, best, last", "losses of base, best, last"]
    assert len(first.test_openings) == 1
    assert "was opened twice" in second.path("report.html").read_text()
    start = second.history()[0]["validation_nll"]
    assert start == pytest.approx(
        min(entry["validation_nll"] for entry in first.history()), abs=1e-5
    )
    earlier = EarlierRuns.of(str(second.best))
    assert [run.folder for run in earlier.runs] == [second.folder, first.folder]
    assert len(earlier.openings(read_parts(str(second.path("data")), second.recipe))) == 3


@pytest.mark.slow
def test_more_rows_are_trained_on_and_the_old_test_is_not(first, lines, tmp_path):
    rows = tmp_path / "all.jsonl"
    rows.write_text("\n".join(lines))
    model = str(first.best)
    other = [*SETTINGS, "data.seed=3"]
    with pytest.raises(UserError) as refused:
        fit(model, str(rows), out=tmp_path / "run", recipe="full", settings=other)
    assert f"{model} was trained in {first.folder} on " in str(refused.value)
    assert not (tmp_path / "run").exists()
    words = shlex.split(str(refused.value).rpartition(" by ")[2])
    options = words[1::2]
    assert words[::2] == ["--set", "--set"]
    settings = [*SETTINGS, *options]
    run = fit(model, str(rows), out=tmp_path / "run", recipe="full", settings=settings).run
    assert texts(run, "train") > texts(first, "train")
    assert texts(run, "test") == texts(first, "test")
    assert not texts(run, "train") & (texts(run, "test") | texts(run, "validation"))
    assert len(run.test_openings) == 2


def test_a_model_that_is_of_no_run_has_no_earlier_ones(tiny_model_dir, tmp_path):
    assert EarlierRuns.of(str(tiny_model_dir)).runs == ()
    assert EarlierRuns.of("org/best").runs == ()
    assert EarlierRuns.of(str(shutil.copytree(tiny_model_dir, tmp_path / "best"))).runs == ()
