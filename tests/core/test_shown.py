"""Results in a notebook and as tables."""

import json
import sys

import pytest

import heldout
from heldout.core.language import using
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.progress import told
from heldout.core.verdict import VERDICTS


@pytest.fixture
def diagnosis():
    light = heldout.Verdict("red", "It recites <b>.", ("recited",))
    grey = heldout.Verdict("unknown", "Not measured.")
    verdicts = {name: light if name == "memorization" else grey for name in VERDICTS}
    interval = Interval(0.1, 0.3)
    return heldout.Diagnosis(
        "model",
        None,
        "generalize",
        [
            Measurement(
                "recited", 0.2, "share", 40, "group", interval, {"base": Contrast(0.1, interval)}
            ),
            Measurement("few", 0.5, "share", 2, "group", Interval.withheld()),
            NotMeasured("other", "no base model"),
        ],
        heldout.Verdicts("It has learned by heart.", verdicts),
        heldout.Facts(),
    )


def test_measurements_as_a_table(diagnosis):
    table = diagnosis.to_pandas()
    assert list(table["name"]) == ["recited", "few", "other"]
    assert (table.low[0], table.high[0]) == (0.1, 0.3)
    assert table.low[1:].isna().all()  # withheld or not measured: no end of an interval
    assert table.note[2] == "no base model"


def test_a_notebook_shows_lights_and_escapes_what_it_quotes(diagnosis):
    page = diagnosis._repr_html_()
    assert "It has learned by heart." in page
    assert "It recites &lt;b&gt;." in page
    assert "memorization" in page
    assert "0.2" in page
    with using("zh"):
        assert "memorization (" not in diagnosis._repr_html_().partition("<table")[0]


def test_a_notebook_is_told_each_stage_once(capsys, monkeypatch):
    assert type(told(None)) is heldout.Progress
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    progress = told(None)
    for name in ("data and checks", "training", "training"):
        with progress.stage(name):
            pass
    progress.note("done")
    assert capsys.readouterr().out == "data and checks ...\ntraining ...\ndone\n"
    assert told(heldout.Progress()) is not None


def test_a_run_shows_its_page_and_its_course(tmp_path, diagnosis):
    run = heldout.Run.create(tmp_path / "run", heldout.Recipe())
    run.append_history({"step": 0, "epoch": 0.0, "validation_nll": 3.0})
    result = heldout.FitResult(run, diagnosis.verdict)
    assert json.loads(result.to_pandas().to_json(orient="records"))[0]["validation_nll"] == 3.0
    assert "It has learned by heart." in result._repr_html_()
    run.write_text("report.html", '<p class="x">the page</p>')
    shown = result._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "&lt;p class=&quot;x&quot;&gt;" in shown
