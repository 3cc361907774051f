"""``heldout diagnose LOG --watch``: told when the verdict changes, and when training is over."""

import json
import os
import sys
import time

import pytest

from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.jobs.diagnosing.watch import watch

RISING = [2.6, 2.2, 2.0, 2.1, 2.3, 2.6, 2.9, 3.2, 3.5, 3.8]


@pytest.fixture
def log(tmp_path):
    """A log of LLaMA-Factory, and a function that writes the lines of one epoch more."""
    file = tmp_path / "trainer_log.jsonl"
    file.touch()
    losses = iter(enumerate(RISING, 1))

    def one_more(seconds=0.0):
        try:
            n, loss = next(losses)
        except StopIteration:
            line = {"current_steps": 100, "total_steps": 100, "epoch": 10.0, "percentage": 100.0}
            lines = [line]
        else:
            about = {"current_steps": 10 * n, "total_steps": 100, "epoch": n, "percentage": 10 * n}
            lines = [{**about, "loss": 2.7 - 0.1 * n}, {**about, "eval_loss": loss}]
        with file.open("a", encoding="utf-8") as opened:
            opened.writelines(json.dumps(line) + "\n" for line in lines)

    return file, one_more


def test_a_growing_log_is_told_when_its_verdict_changes(log):
    file, one_more = log
    waits = []
    seen = list(watch(file, every=7, pause=lambda s: (waits.append(s), one_more())))
    assert seen[0].result is None
    assert "holds no log with losses yet" in seen[0].waiting
    colors = [one.result.verdict.verdicts["fit"].color for one in seen[1:]]
    assert colors[-1] == "red"
    assert "green" not in colors
    steps = [one.step for one in seen[1:]]
    assert steps == sorted(steps)
    assert len(seen) < len(waits)  # most readings change nothing
    assert [one.over for one in seen] == [""] * (len(seen) - 1) + ["ended"]
    assert set(waits) == {7}


def test_a_folder_is_watched_for_the_log_that_will_lie_there(tmp_path, log):
    file, one_more = log
    file.unlink()
    seen = list(watch(tmp_path, pause=one_more))
    assert "holds no log with losses yet" in seen[0].waiting
    assert seen[-1].over == "ended"


def test_a_finished_log_is_told_once(log, monkeypatch, capsys):
    file, one_more = log
    for _ in range(11):
        one_more()
    assert len(list(watch(file, pause=pytest.fail))) == 1
    monkeypatch.setattr(
        sys, "argv", ["heldout", "diagnose", str(file), "--watch", "--fail-on", "fit"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Step 100: red: By the log, the end is past its best")
    assert told[1].strip().startswith("too many epochs (")
    assert told[2:] == ["The training has ended."]


def test_a_log_that_never_says_so_is_over_when_nothing_is_written_for_long(tmp_path):
    file = tmp_path / "log_1.txt"
    file.write_text("".join(f"Step {n} | loss:2.5 val_loss:{2.9 - n / 9}\n" for n in range(1, 9)))
    os.utime(file, (time.time() - 4000, time.time() - 4000))
    assert [one.over for one in watch(file, pause=pytest.fail)] == ["quiet"]
    waits = []

    def stop(seconds):
        waits.append(seconds)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # with long waits between evaluations it is not over
        list(watch(file, every=600, pause=stop))
    assert waits == [600]


def test_ctrl_c_ends_in_one_line(log, monkeypatch, capsys):
    file, one_more = log
    one_more()

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    monkeypatch.setattr(watch, "__kwdefaults__", {**watch.__kwdefaults__, "pause": stop})
    monkeypatch.setattr(sys, "argv", ["heldout", "diagnose", str(file), "--watch", "--every", "5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "No longer watched."
    assert not told.err


def test_a_run_of_heldout_is_watched_by_its_history(tmp_path):
    def status(state):
        about = {"layout": "heldout.run/1", "state": state}
        (tmp_path / "status.json").write_text(json.dumps(about), encoding="utf-8")

    def one_more(seconds):
        if len(rows) == len(RISING):
            return status("complete")
        n = len(rows) + 1
        rows.append({"step": 10 * n, "epoch": n, "validation_nll": RISING[n - 1]})
        text = "\n".join(map(json.dumps, rows))
        return (tmp_path / "history.jsonl").write_text(text, encoding="utf-8")

    rows = []
    status("training")
    seen = list(watch(tmp_path, pause=one_more))
    assert seen[-1].over == "ended"
    assert seen[-1].result.verdict.verdicts["fit"].color == "red"


@pytest.mark.parametrize(("name", "seconds"), [("nowhere", 1.0), ("", 0.0)])
def test_nothing_to_watch_is_one_line(tmp_path, name, seconds):
    with pytest.raises(UserError, match=r"--watch .*nowhere|--every must be more than 0"):
        next(watch(tmp_path / name, every=seconds))
