"""A kill at any moment of the swap leaves one whole folder."""

import pytest

from heldout.training.keeper import recover, replace_folder


def writer(text):
    def write(folder):
        folder.mkdir()
        (folder / "weights").write_text(text)

    return write


def test_the_new_folder_takes_the_place_of_the_old(tmp_path):
    best = tmp_path / "best"
    replace_folder(best, writer("first"))
    replace_folder(best, writer("second"))
    assert (best / "weights").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_while_writing_keeps_the_old(tmp_path):
    best = tmp_path / "best"
    replace_folder(best, writer("first"))

    def killed(folder):
        folder.mkdir()
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(best, killed)
    recover(best)
    assert (best / "weights").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    best = tmp_path / "best"
    writer("first")(tmp_path / "best.old")
    writer("second")(tmp_path / "best.partial")
    recover(best)
    assert (best / "weights").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
