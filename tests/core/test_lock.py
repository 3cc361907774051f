"""One process at a time in a folder: real processes, and a kill that lets go."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from heldout.core.errors import UserError
from heldout.core.files import LOCK
from heldout.core.lock import alone_in, scratch_folder

HOLD = """
import sys, time
from pathlib import Path
from heldout.core.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_it_is_killed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        with pytest.raises(UserError, match=r"run is in use by another heldout command"):
            alone_in(folder).__enter__()
        assert time.monotonic() - start < 1
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with alone_in(folder):
            pass


def test_another_thread_is_refused_and_the_same_one_may_take_it_again(tmp_path):
    refused = []

    def other():
        try:
            with alone_in(tmp_path):
                pass
        except UserError as error:
            refused.append(str(error))

    with alone_in(tmp_path):
        with alone_in(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert str(tmp_path) in refused[0]


def test_a_new_folder_in_which_nothing_was_written_goes(tmp_path):
    with pytest.raises(UserError, match="too short"), alone_in(tmp_path / "new"):
        raise UserError("too short")
    assert list(tmp_path.iterdir()) == []
    with alone_in(tmp_path / "new"):
        (tmp_path / "new" / "result.json").write_text("{}")
    assert (tmp_path / "new" / "result.json").exists()
    (tmp_path / "empty").mkdir()
    with alone_in(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(UserError, match="is a file"), alone_in(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").read_text() == "keep"


KILLED = """
import os, signal
from heldout.core.lock import scratch_folder
with scratch_folder("heldout-test-") as folder:
    (folder / "texts").write_text("a large index")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_leaves_in_the_temporary_folder_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    subprocess.run(
        [sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False
    )
    (left,) = tmp_path.iterdir()
    assert (left / "texts").exists()
    (tmp_path / "heldout-test-of-others").mkdir()
    with scratch_folder("heldout-test-"):
        assert left.exists(), "it may have begun just now"
    long_ago = time.time() - 3600
    os.utime(left / LOCK, (long_ago, long_ago))
    with scratch_folder("heldout-test-") as first:
        os.utime(first / LOCK, (long_ago, long_ago))
        assert not left.exists()
        with scratch_folder("heldout-test-"):
            assert first.exists(), "its command is at work"
    assert [path.name for path in tmp_path.iterdir()] == ["heldout-test-of-others"]
