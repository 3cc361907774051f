"""The sealed test of a run that can still be resumed stays closed."""

import pytest

from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.diagnosing.find_target import find_target
from heldout.jobs.evidence.texts import texts_of_run


def rows(first, num):
    return [
        Row(
            place,
            ({"role": "text", "content": f"Statement {place} of {place * place}."},),
            f"{place}",
        )
        for place in range(first, first + num)
    ]


@pytest.fixture(params=["started", "training", "interrupted", "failed"])
def unfinished(request, tmp_path):
    run = Run.create(tmp_path / "run", Recipe())
    for part, first in (("train", 0), ("validation", 40), ("test", 80)):
        run.write_rows(part, rows(first, 40))
    counts = dict.fromkeys(("train", "validation", "test"), 40)
    about = {"rows": counts, "groups": counts, "mode": "split", "kind": "text", "duplicates": 0}
    run.write_json("data.json", about)
    run.write_json("environment.json", {"model": "package:heldout"})
    run.best.mkdir()
    run.write_status(request.param)
    return run


def test_it_is_refused_in_one_line(unfinished, monkeypatch, capsys):
    command = [
        "heldout",
        "diagnose",
        str(unfinished.folder),
        "--out",
        str(unfinished.path("found")),
    ]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has not opened its sealed test yet" in line
    assert f"--resume {unfinished.folder}" in line
    assert unfinished.test_openings == []
    assert not unfinished.path("found").exists()


def test_it_is_opened_where_that_is_asked_for(unfinished):
    found = texts_of_run(unfinished, "", {}, Recipe(), 400, open_test=True)
    assert len(found.heldout) == 40
    assert len(unfinished.test_openings) == 1


def test_a_test_that_was_measured_is_open(unfinished):
    unfinished.write_json("recitals.json", {})
    assert len(texts_of_run(unfinished, "", {}, Recipe(), 400).heldout) == 40


def test_what_is_refused_leaves_it_closed(unfinished):
    with pytest.raises(UserError, match=r"nowhere\.txt: no such file"):
        texts_of_run(unfinished, "", {"other": "nowhere.txt"}, Recipe(), 400, open_test=True)
    assert unfinished.test_openings == []
    unfinished.path("data/test.jsonl").unlink()
    with pytest.raises(UserError, match=r"test\.jsonl is missing"):
        texts_of_run(unfinished, "", {}, Recipe(), 400, open_test=True)
    assert unfinished.test_openings == []
    unfinished.write_json("environment.json", {"model": "./gone"})
    with pytest.raises(UserError, match=r"Model \./gone: no such folder"):
        find_target(str(unfinished.folder), "", "")
