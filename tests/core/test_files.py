"""What is written whole or not at all: files, folders, and a page with its JSON."""

import json

import pytest

from heldout.core.files import write_text, written_whole
from heldout.jobs.kit.page_folder import write_page_folder


def failing(path):
    path.write_text("half")
    raise OSError("No space left on device")


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space"), written_whole(path) as partial:
        failing(partial)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_the_ending_stays(tmp_path):
    with written_whole(tmp_path / "losses.npz") as partial:
        assert partial.suffix == ".npz"
        partial.write_bytes(b"")
    assert [path.name for path in tmp_path.iterdir()] == ["losses.npz"]


def test_a_folder_appears_with_both_or_not_at_all(tmp_path):
    folder = tmp_path / "runs" / "check"
    with pytest.raises(OSError, match="No space"):
        write_page_folder(folder, "check.json", {"rows": 1}, failing)
    assert not folder.exists()
    assert not list(folder.parent.iterdir())
    write_page_folder(folder, "check.json", {"rows": 1}, lambda path: path.write_text("<html>"))
    assert json.loads((folder / "check.json").read_text()) == {"rows": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["check.json", "report.html"]


def test_a_folder_in_use_keeps_what_it_holds(tmp_path):
    (tmp_path / "member-0").mkdir()
    write_page_folder(tmp_path, "ensemble.json", {"n": 1}, lambda path: path.write_text("one"))
    with pytest.raises(OSError, match="No space"):
        write_page_folder(tmp_path, "ensemble.json", {"n": 2}, failing)
    assert json.loads((tmp_path / "ensemble.json").read_text()) == {"n": 1}
    assert (tmp_path / "report.html").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ensemble.json",
        "member-0",
        "report.html",
    ]


def test_what_is_no_json_is_refused_before_the_page(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_page_folder(tmp_path, "laws.json", {"loss": float("nan")}, failing)
    assert not list(tmp_path.iterdir())
