import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.files import remove
from heldout.core.lock import alone_in
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Recipe())


def rows(*texts):
    return [
        Row(i, ({"role": "text", "content": text},), f"row-{i}") for i, text in enumerate(texts)
    ]


def test_a_run_never_overwrites_another(run):
    run.write_json("environment.json", {})
    with pytest.raises(UserError, match="holds another run"):
        Run.create(run.folder, Recipe())


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="holds files"):
        Run.create(tmp_path, Recipe())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]


def beginnings():
    """What a kill can leave of a run before environment.json, file by file."""
    return {
        "status alone": ["data", "checkpoints", "evaluations", "recipe.toml"],
        "no recipe": ["recipe.toml"],
        "folders and a recipe": [],
    }


@pytest.mark.parametrize("missing", beginnings().values(), ids=beginnings())
def test_a_run_that_was_cut_short_can_be_started_anew(run, missing):
    for name in missing:
        remove(run.path(name))
    run.path("checks.json.partial").write_text("[")
    if run.path("data").exists():
        run.write_rows("train", rows("old"))
    other = Recipe().replace(train={"seed": 7})
    with alone_in(run.folder):
        again = Run.create(run.folder, other)
    assert again.recipe == other
    assert not again.path("data/train.jsonl").exists()
    assert not again.path("checks.json.partial").exists()


@pytest.mark.parametrize("name", ["environment.json", "notes.txt", "curve.json"])
def test_what_is_more_than_a_beginning_stays(run, name):
    run.path(name).write_text("{}")
    with pytest.raises(UserError, match="holds another run"):
        Run.create(run.folder, Recipe())
    assert run.path(name).read_text() == "{}"


def test_half_written_files_of_others_stay(tmp_path):
    (tmp_path / "model.partial").write_text("mine")
    Run.create(tmp_path, Recipe())
    assert (tmp_path / "model.partial").read_text() == "mine"


def test_opening_what_is_no_run(tmp_path, run):
    with pytest.raises(UserError, match="is not a run"):
        Run.open(tmp_path)
    run.write_json("status.json", {"layout": "heldout.run/9"})
    with pytest.raises(UserError, match=r"heldout\.run/9"):
        Run.open(run.folder)


def test_every_opening_of_the_test_part_is_recorded(run):
    run.write_rows("test", rows("a", "b"))
    assert run.test_openings == []
    opened = run.open_test("first look")
    assert [row.text for row in opened] == ["a", "b"]
    assert [row.text for row in opened] == ["a", "b"]
    run.open_test("second look")
    assert [o["purpose"] for o in run.test_openings] == ["first look", "second look"]
    with pytest.raises(AssertionError):
        next(run.read_rows("test"))


def test_a_stage_that_was_stopped_goes_on_with_its_opening(run):
    run.write_rows("test", rows("a", "b"))
    for _ in range(2):
        opened = run.open_test("a stage", once=True)
        assert [row.text for row in opened] == ["a", "b"]
    assert [o["purpose"] for o in run.test_openings] == ["a stage"]


def test_a_half_written_last_line_is_forgotten(run):
    run.append_history({"step": 1})
    with run.path("history.jsonl").open("a") as file:
        file.write('{"step": 2, "valid')
    assert run.history() == [{"step": 1}]


def test_history_is_cut_back_for_a_resume(run):
    for step in (0, 5, 10):
        run.append_history({"step": step})
    run.truncate_history(5)
    assert [entry["step"] for entry in run.history()] == [0, 5]


def test_losses_survive_the_disk_and_refuse_other_documents(run):
    losses = DocumentLosses(
        np.array([2.0, 6.0]), np.array([1, 3]), np.array([4, 12]), np.array(["a", "b"])
    )
    run.save_losses("best", "test", losses)
    again = run.losses("best", "test")
    assert again.nats_per_token == 2.0
    assert again.bits_per_byte == pytest.approx(8 / np.log(2) / 16)
    assert run.losses("last", "test") is None
    other = DocumentLosses(*[np.array(v) for v in ([2.0, 6], [2, 2], [4, 12], ["a", "b"])])
    with pytest.raises(AssertionError, match="same documents"):
        losses.minus(other)
