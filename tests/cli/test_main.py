"""The command line as a newcomer meets it."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from heldout.cli.main import _how_to_go_on, main
from heldout.core.discovery import list_entries
from heldout.core.errors import Interrupted
from heldout.core.recipe import EvalSection, Recipe
from heldout.core.run import Run


def heldout(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "heldout", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        check=False,
        **options,
    )


def test_help_is_there_at_once_and_imports_no_torch():
    shown = heldout("--help")
    assert shown.returncode == 0
    assert "fit" in shown.stdout
    code = (
        "import sys; import heldout.cli.main; heldout.cli.main.command_line();"
        "bad = {'torch', 'transformers', 'jinja2', 'datasets', 'numpy'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list_as_json_names_everything(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heldout", "list", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) == len(list_entries())
    for entry in entries:
        assert {"kind", "name", "source", "cost"} <= entry.keys()


def test_every_key_of_a_recipe_is_explained(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heldout", "list", "keys", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    keys = {key["name"]: key for key in json.loads(capsys.readouterr().out)}
    assert [name for name, key in keys.items() if len(key["meaning"]) < 6] == []
    assert keys["train.max_epochs"]["default"] == 20
    assert len(keys) > 60


def test_list_is_one_line_each_and_a_card_for_one():
    shown = heldout("list", "regularizer")
    names = {entry.name for entry in list_entries() if entry.kind == "regularizer"}
    lines = [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  ")]
    assert names <= set(lines)
    card = heldout("list", "sam").stdout
    for words in ("radius = 0.05", "arXiv 2010.01412", "cost:"):
        assert words in card


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit"], "fit needs --model and --data"),
        (["fit", "--demo", "-m", "m"], "--demo brings its own model"),
        (["fit", "--model", "m", "--data", "d", "--recipe", "defualt"], "did you mean 'default'"),
        (["fit", "-m", "m", "-d", "d", "--set", "trian.seed=1"], "did you mean 'train'"),
        (["fit", "-m", "m", "-d", "d", "--set", "lr=1"], "did you mean 'train.learning_rate'?"),
        (["fit", "--epochs", "3"], "mean --set train.max_epochs=...? Try `heldout fit --help`."),
        (["fit", "--lr", "1e-3"], "did you mean --set train.learning_rate=...?"),
        (["fit", "--modle", "m"], "No such option: --modle: did you mean --model? Try"),
        (["plan", "laws", "--lr", "1"], "No such option: --lr. Try `heldout plan laws --help`."),
        (["fit", "--minutes", "0"], "--minutes must be above 0, got 0."),
        (["list", "train.shedule"], "did you mean 'train.schedule'"),
        (["fit", "--resume", "nowhere"], "is not a run"),
        (["fit", "-m", "m", "--resume", "nowhere"], "leave out --model"),
        (["list", "regularizers"], "is neither a kind nor a name: did you mean 'regularizer'"),
        (["report", "nowhere"], "is not a run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["heldout", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert words in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_its_own_ends_with_2_and_one_line(tmp_path):
    shown = heldout("fit", "--modle", "m", cwd=tmp_path)
    assert shown.returncode == 2
    assert len(shown.stderr.strip().splitlines()) == 1
    assert shown.stdout == ""


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [
        (KeyboardInterrupt, 1, "Stopped at once. Give the command again."),
        (Interrupted, 1, "Stopped. Give the command again."),
        (OSError(28, "No space left on device", "/x"), 2, "The disk is full at /x: free some sp"),
        (RuntimeError("File too large"), 2, "The disk is full: free some space."),
    ],
)
def test_what_stops_a_command_is_told_in_one_line(stop, code, words, monkeypatch, capsys):
    def stopped(*runs, **options):
        raise stop

    monkeypatch.setattr("heldout.jobs.report.write_report", stopped)
    monkeypatch.setattr(sys, "argv", ["heldout", "report", "run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"heldout: {words}")
    assert "resume" not in shown


def test_torch_on_a_full_disk_is_told_in_one_line(monkeypatch, capsys):
    def written(*runs, **options):
        torch.save(torch.zeros(100_000), "/dev/full")

    monkeypatch.setattr("heldout.jobs.report.write_report", written)
    monkeypatch.setattr(sys, "argv", ["heldout", "report", "run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("heldout: The disk is full: free some space.")


def test_a_stopped_run_is_named_with_its_report(tmp_path):
    run = tmp_path / "a run"
    said = _how_to_go_on(["fit", "-m", "m"], run)
    assert said == f"`heldout fit --resume '{run}'` goes on."
    run.mkdir()
    (run / "report.html").touch()
    assert _how_to_go_on(["fit"], run).endswith(f"Its report so far: {run}/report.html")
    assert str(run) not in _how_to_go_on(["ensemble"], run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "-m", "m"], "`heldout fit --resume RUN`"),
        (["hyperfit", "--resume", "r"], "`heldout hyperfit --resume RUN`"),
        (["check", "data", "--learning-curve"], "Give the command again."),
        (["plan", "advise", "--measure"], "With --out, "),
        (["plan", "laws"], "Give the command again."),
        ([], "Give the command again."),
    ],
)
def test_only_what_goes_on_is_told_to_go_on(arguments, words):
    assert words in _how_to_go_on(arguments)


@pytest.mark.slow
def test_a_check_that_is_terminated_leaves_nothing(tmp_path):
    (tmp_path / "temp").mkdir()
    data = tmp_path / "rows.jsonl"
    with data.open("w") as file:
        for number in range(60_000):
            file.write(
                json.dumps({"text": f"Row {number} of it is as long as {number**3}."}) + "\n"
            )
    process = subprocess.Popen(
        [sys.executable, "-m", "heldout", "check", str(data), "--write-clean", "clean"],
        env={**os.environ, "TMPDIR": str(tmp_path / "temp")},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list((tmp_path / "temp").glob("heldout-check-*/texts")):
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "heldout: Stopped at once. Give the command again."
    assert list((tmp_path / "temp").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "temp"]


def test_a_run_that_is_none_is_refused_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from heldout.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert ended.code == 2, ended\n"
        "bad = {'torch', 'transformers'} & set(sys.modules); assert not bad, bad"
    )
    for command in ("fit", "hyperfit"):
        shown = subprocess.run(
            [sys.executable, "-c", code, command, "--resume", str(tmp_path / "nothere")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "nothere is not a run" in shown.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit --resume RUN", "is a run of `heldout hyperfit`: use `heldout hyperfit --resume`"),
        ("diagnose RUN --fact epochs=many", "--fact epochs must be a number, got 'many'"),
        ("diagnose RUN --fact history=3", "--fact history must be"),
        ("diagnose nowhere", "nowhere: no such run or folder here. Of a model without a run"),
        ("diagnose RUN --junit gone/lights.xml", "--junit gone/lights.xml lies in a folder that"),
        ("check rows.jsonl --junit .", "--junit . is a folder"),
    ],
)
def test_it_is_told_before_any_work(command, words, tmp_path, monkeypatch, capsys):
    run = Run.create(tmp_path / "run", Recipe())
    run.write_json("environment.json", {"model": "m", "job": "hyperfit"})
    run.write_json("data.json", {"mode": "split", "rows": {}})
    (tmp_path / "rows.jsonl").write_text('{"text": "a row"}\n')
    monkeypatch.chdir(tmp_path)
    arguments = command.replace("RUN", str(run.folder)).split()
    monkeypatch.setattr(sys, "argv", ["heldout", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "run"]


CODE = {
    "eval.metric=mine.py:score": {"eval": {"metric": "mine.py:score"}},
    "model.trust_remote_code=true": {"model": {"trust_remote_code": True}},
}


@pytest.mark.parametrize(("setting", "sections"), CODE.items(), ids=CODE)
@pytest.mark.parametrize("command", ["fit", "hyperfit"])
def test_a_run_runs_no_code_of_its_own_unasked(
    command, setting, sections, tmp_path, monkeypatch, capsys
):
    Run.create(tmp_path / "run", Recipe().replace(**sections))
    monkeypatch.setattr(sys, "argv", ["heldout", command, "--resume", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="2"):
        main()
    shown = capsys.readouterr().err
    assert f"recipe.toml has {setting}, which runs code" in shown
    assert "--trust-code" in shown


@pytest.mark.parametrize(("setting", "sections"), CODE.items(), ids=CODE)
@pytest.mark.parametrize("command", ["counterfactual", "distill"])
def test_what_trains_like_a_run_runs_no_code_of_it_unasked(
    command, setting, sections, tmp_path, monkeypatch, capsys
):
    run = Run.create(tmp_path / "member-0", Recipe().replace(**sections))
    run.write_status("complete")
    run.write_json("result.json", {"best_step": 9, "best_epoch": 1, "learning_rate": 1e-3})
    about = {"schema": "heldout.ensemble/1", "model": "m", "data": "d", "from_scratch": ""}
    about["members"] = [{"run": "member-0", "seed": 0}]
    (tmp_path / "ensemble.json").write_text(json.dumps(about))
    folder = {"counterfactual": run.folder, "distill": tmp_path}[command]
    monkeypatch.setattr(sys, "argv", ["heldout", command, str(folder)])
    with pytest.raises(SystemExit, match="2"):
        main()
    shown = capsys.readouterr().err
    assert f"member-0/recipe.toml has {setting}, which runs code" in shown
    assert "--trust-code" in shown


def test_code_of_teachers_is_named_too():
    recipe = Recipe(regularizers={"distillation": {"trust_remote_code": True, "teachers": ["t"]}})
    assert recipe.own_code == ["regularizers.distillation.trust_remote_code=true"]
    assert Recipe(eval=EvalSection(metric="exact_match")).own_code == []


@pytest.mark.slow
def test_a_full_disk_is_one_line(tiny_model_dir, english_text, tmp_path):
    """A real, tiny file system; where mounting is not allowed, a limit on the size of files."""
    rows = [json.dumps({"text": p[:100]}) for p in english_text.split("\n\n") if len(p) > 90][:120]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(rows))
    command = [sys.executable, "-m", "heldout", "fit", "-m", str(tiny_model_dir), "-d", str(data)]
    command += ["--recipe", "full", "--set", "train.learning_rate=1e-3", "--out", "run"]
    command += ["--set", "data.max_length=48", "--set", "train.max_epochs=1"]
    limited = f"ulimit -f 60; exec {' '.join(command)}"  # blocks of 1,024 bytes in bash
    shown = subprocess.run(
        ["bash", "-c", limited],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert shown.returncode == 2, shown.stderr
    assert "disk is full" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_version():
    assert heldout("--version").stdout.startswith("heldout ")
