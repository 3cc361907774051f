import json
from importlib import resources

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from heldout.cli import main as cli
from heldout.cli.show import show_laws
from heldout.jobs.planning.laws import laws
from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.lovelace import Lovelace
from heldout.scaling.runs import points


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """30 one-epoch runs that follow Chinchilla's law with 1 % noise."""
    N = np.repeat(np.geomspace(2e7, 3e9, 6), 5)
    D = N * np.tile(np.geomspace(3, 300, 5), 6)
    values = {"E": 1.8, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}
    loss = Chinchilla().predict(points(N, D), values)
    loss = loss * np.exp(0.01 * np.random.default_rng(0).normal(size=30))
    path = tmp_path_factory.mktemp("laws") / "runs.csv"
    lines = [f"{n},{d},{value}" for n, d, value in zip(N, D, loss, strict=True)]
    path.write_text("\n".join(["total_parameters,tokens,loss", *lines]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    N, D, epochs = (
        axis.ravel()
        for axis in np.meshgrid(
            np.geomspace(2e7, 1e9, 4), np.geomspace(1e9, 5e10, 3), [1, 4, 12, 40, 100]
        )
    )
    values = {
        "E": 1.8,
        "A": 400.0,
        "B": 2000.0,
        "P": 0.05,
        "alpha": 0.34,
        "beta": 0.37,
        "delta": 0.6,
        "kappa": 0.8,
    }
    loss = Lovelace().predict(points(N, D, D / epochs), values)
    path = tmp_path_factory.mktemp("laws") / "<b>repeated.csv"
    lines = [f"{n},{d},{e},{v}" for n, d, e, v in zip(N, D, epochs, loss, strict=True)]
    path.write_text("\n".join(["N,D,epochs,loss", *lines]), encoding="utf-8")
    return path


def validate(entry):
    path = resources.files("heldout.core") / "schemas" / "laws.json"
    Draft202012Validator(json.loads(path.read_text(encoding="utf-8"))).validate(entry)


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["heldout", "plan", "laws", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_json_on_the_command_line(table, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, table, "--law", "chinchilla", "--json")
    assert code == 0
    entry = json.loads(out)
    validate(entry)
    assert entry["schema"] == "heldout.laws/1"
    assert list(entry["parameters"]) == ["E", "A", "B", "alpha", "beta"]
    assert entry["certificate"]["certain"]
    assert entry["units"]["N"] == "parameters, total"
    low, high = (entry["intervals"]["alpha"][end] for end in ("low", "high"))
    assert low < 0.34 < high


def test_without_repetition_the_laws_of_repetition_have_no_say(table, capsys):
    result = laws(table, num_resamples=20)
    assert set(result.choice.scores) == {"chinchilla", "over_training"}
    show_laws(result.to_json(), as_json=False)
    out = capsys.readouterr().out
    assert "Chosen by forecasts" in out
    assert "every token counts as new" in " ".join(out.split())


def test_folder_holds_the_page_and_the_numbers(repeated, tmp_path):
    result = laws(repeated, out=tmp_path / "plan", axes=("epochs",), num_resamples=50)
    entry = json.loads((tmp_path / "plan" / "laws.json").read_text(encoding="utf-8"))
    validate(entry)
    assert entry["law"] == result.fit.law.name == "lovelace"
    assert {each["law"] for each in entry["laws"]} >= {"chinchilla", "hybrid", "practical"}
    text = result.report.read_text(encoding="utf-8")
    assert len(text.encode()) <= 400_000
    for name in ("fit", "residuals", "isoflop", "isoloss", "epochs", "intervals"):
        assert f'id="{name}"' in text
    assert "<b>repeated" not in text
    assert "&lt;b&gt;repeated.csv" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--law", "chinchila"], "did you mean 'chinchilla'"),
        (["--axis", "time"], "Unknown axis 'time'"),
        (["--delta", "0"], "--delta must be positive"),
        (["--uniform-loss", "-1"], "--uniform-loss must be positive"),
        (["--counted", "some"], "--counted must be one of"),
    ],
)
def test_bad_options_are_one_line(table, words, expected, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, table, *words)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(3, "5 parameters and there are 3 runs"), (5, "5 parameters and there are 5 runs")],
)
def test_fewer_runs_than_parameters(table, rows, expected, tmp_path, monkeypatch, capsys):
    short = tmp_path / "short.csv"
    short.write_text("\n".join(table.read_text().split("\n")[: rows + 1]), encoding="utf-8")
    code, _, err = run(monkeypatch, capsys, short)
    assert code == 2
    assert expected in err.splitlines()[-1]


def test_one_size_only(table, tmp_path, monkeypatch, capsys):
    path = tmp_path / "one.csv"
    rows = "\n".join(f"1e8,{d}e9,{4 - 0.1 * d}" for d in range(1, 12))
    path.write_text(f"N,D,loss\n{rows}", encoding="utf-8")
    code, _, err = run(monkeypatch, capsys, path)
    assert code == 2
    assert "one model size" in err.splitlines()[-1]
