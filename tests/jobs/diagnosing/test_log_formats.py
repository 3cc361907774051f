"""Logs that other tools wrote, read by their content.

``written_logs`` holds files that the packages themselves wrote: lightning 2.6.6 (CSVLogger and
TensorBoardLogger in a ``Trainer.fit``), torchtune 0.6.1 (DiskLogger), mlx-lm 0.32.2 (TrainUI),
wandb 0.31.0 (offline), mlflow 3.17.2, llamafactory 0.9.5 (LogCallback), transformers 5.23.0 (the
console of ``Trainer.train``). All log the same course of ten evaluations.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from tensorboard.summary import Writer
from torch.utils.tensorboard import SummaryWriter

from heldout.core.errors import UserError
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.diagnosing.find_log import read_raw
from heldout.jobs.diagnosing.raw_log import raw_log

WRITTEN = Path(__file__).parent / "written_logs"
COURSE = [2.6, 2.2, 2.0, 2.1, 2.3, 2.6, 2.9, 3.2, 3.5, 3.8]
# mlx-lm 0.28.0, tuner/trainer.py, with numbers of our own.
MLX = "Starting training..., iters: 100\nIter 1: Val loss 2.900, Val took 1.512s\n" + "".join(
    f"Iter {10 * n}: Val loss {loss:.3f}, Val took 1.512s\n"
    f"Iter {10 * n}: Train loss {2.7 - 0.1 * n:.3f}, Learning Rate 1.000e-05, It/sec 0.9, "
    f"Tokens/sec 400.1, Trained Tokens {n}000, Peak mem 3.2 GB\n"
    for n, loss in enumerate(COURSE, 1)
)  # fmt: skip


def evaluations(path, **options):
    """Step, epoch and loss of each, with the diagnosis."""
    result = diagnose(path, **options)
    points = [point for point in result.facts.history if point.validation_nll is not None]
    return [(one.step, one.epoch, one.validation_nll) for one in points], result


@pytest.mark.parametrize(
    ("name", "every", "has_epochs"),
    [
        ("lightning", 10, True),
        ("lightning/metrics.csv", 10, True),
        ("lightning_events", 10, True),
        ("torchtune.txt", 50, False),
        ("run.wandb", 50, True),
        ("mlruns", 50, True),
        ("mlruns/1/run", 50, True),
        ("trainer_log.jsonl", 50, True),
        ("trainer.out", 10, True),
    ],
)
def test_logs_that_packages_wrote_are_read_alike(name, every, has_epochs):
    found, result = evaluations(WRITTEN / name)
    assert [loss for _, _, loss in found] == pytest.approx(COURSE)
    assert [step for step, _, _ in found] == [every * n for n in range(1, 11)]
    assert [epoch for _, epoch, _ in found] == pytest.approx(
        [n if has_epochs else 0 for n in range(1, 11)]
    )
    assert result.verdict.verdicts["fit"].color == "red"
    assert f"since step {3 * every}" in result.verdict.headline
    assert result.verdict.causes[0].name == "too_many_epochs"
    assert "has risen by 1.800 nats/token" in result.verdict.causes[0].evidence_for[0]
    training = [point.train_nll for point in result.facts.history]
    assert training[0] > training[-1] > 1.5
    assert ("epoch" in result.warnings[0]) == has_epochs


@pytest.mark.parametrize("old", [True, False])
def test_what_mlx_prints_is_read_in_both_forms(tmp_path, old):
    path = WRITTEN / "mlx_table.txt"
    if old:
        path = tmp_path / "train.log"
        path.write_text(MLX, encoding="utf-8")
    found, result = evaluations(path)
    assert [loss for _, _, loss in found] == pytest.approx([2.9, *COURSE])
    assert [step for step, _, _ in found] == [0, *((10 if old else 50) * n for n in range(1, 11))]
    assert result.facts.learning_rate == (1e-5 if old else None)


def test_epochs_that_a_log_does_not_count_can_be_said():
    found, result = evaluations(WRITTEN / "torchtune.txt", facts={"epochs": 5.0})
    assert [epoch for _, epoch, _ in found] == pytest.approx([n / 2 for n in range(1, 11)])
    assert "at epoch 1.5, step 150" in result.warnings[0]


@pytest.mark.parametrize("writer", [SummaryWriter, Writer])
def test_event_files_of_both_kinds_are_read(tmp_path, writer):
    log = writer(str(tmp_path))
    for n, loss in enumerate(COURSE, 1):
        log.add_scalar("train/loss", 2.7 - 0.1 * n, n * 10)
        log.add_scalar("train/epoch", float(n), n * 10)
        log.add_scalar("eval/loss", loss, n * 10)
    log.close()
    found, _ = evaluations(tmp_path)
    assert found == [(10 * n, n, pytest.approx(loss)) for n, loss in enumerate(COURSE, 1)]


def test_the_run_of_a_database_that_logged_last_is_read(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "create table metrics (key text, value real, timestamp integer, run_uuid text, "
            "step integer, is_nan boolean)"
        )
        database.execute("create table runs (run_uuid text, status text)")
        database.execute("insert into runs values ('new', 'RUNNING'), ('old', 'FINISHED')")
        for n, loss in enumerate(COURSE, 1):
            row = "insert into metrics values ('val_loss', ?, ?, ?, ?, ?)"
            database.execute(row, (loss, 100 + n, "new", n, 0))
            database.execute(row, (9.0, n, "old", n, 0))
        database.execute("insert into metrics values ('val_loss', 0, 111, 'new', 11, 1)")
    database.close()
    found, result = evaluations(path)
    assert [loss for _, _, loss in found] == COURSE
    assert "From step 11, on, every evaluation is NaN" in " ".join(result.warnings)
    assert read_raw(path).has_ended is False


def test_a_log_is_known_by_its_content(tmp_path):
    for name in ("trainer_log.jsonl", "torchtune.txt", "run.wandb", "lightning/metrics.csv"):
        shutil.copy(WRITTEN / name, tmp_path / "no_name")
        assert len(evaluations(tmp_path / "no_name")[0]) == 10


def test_what_is_no_log_is_told_with_all_that_is_read(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("Dear diary, the loss was great.\n", encoding="utf-8")
    with pytest.raises(UserError) as told:
        diagnose(file)
    for name in ("trainer_state.json", "Lightning", "LLaMA-Factory", "torchtune", "MLX-LM", "W&B"):
        assert name in str(told.value)
    assert "\n" not in str(told.value)


def test_a_log_that_is_being_written_is_read_up_to_there(tmp_path):
    for name in ("trainer_log.jsonl", "torchtune.txt", "run.wandb", "lightning/metrics.csv"):
        content = (WRITTEN / name).read_bytes()
        part = tmp_path / Path(name).name
        part.write_bytes(content[: int(len(content) * 0.77)])
        losses = [loss for _, _, loss in evaluations(part)[0]]
        assert 6 <= len(losses) < 10
        assert losses == pytest.approx(COURSE[: len(losses)])


def test_the_newest_log_of_a_folder_that_has_evaluations_is_read(tmp_path):
    (tmp_path / "console.log").write_text("Step 10 | loss:2.5 \n", encoding="utf-8")
    rows = [{"step": n, "loss": 2.0, "val_loss": loss} for n, loss in enumerate(COURSE, 1)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [loss for _, _, loss in evaluations(tmp_path)[0]] == COURSE


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        ({"train/loss": 1, "train/train_loss": 9, "eval/loss": 2, "train/global_step": 5},
         {"loss": 1, "eval_loss": 2, "step": 5}),
        ({"val_loss": 2, "test_loss": 3, "step": 1, "val_acc": 0.5},
         {"eval_loss": 2, "eval_test_loss": 3, "step": 1, "eval_accuracy": 0.5}),
        ({"val_loss/dataloader_idx_0": 2, "val_loss/dataloader_idx_1": 3, "step": 1},
         {"eval_dataloader_idx_0_loss": 2, "eval_dataloader_idx_1_loss": 3, "step": 1}),
        ({"Loss/train": 1, "Loss/val": 2, "step": 1, "lr-AdamW": 3},
         {"loss": 1, "eval_loss": 2, "step": 1, "learning_rate": 3}),
        ({"Step": 1, "run-7 - eval/loss": "2"}, {"eval_loss": 2, "step": 1}),
        ({"eval/news_loss": 2, "global_step": 1, "train_loss_epoch": 1, "train_loss_step": 3},
         {"eval_news_loss": 2, "loss": 3, "step": 1}),
    ],
)  # fmt: skip
def test_names_of_tools_become_those_of_a_trainer(row, entry):
    assert raw_log([row]).entries == [entry]


def test_epochs_without_steps_are_counted_from_one():
    rows = [{"epoch": n, "loss": 1.0, "val_loss": loss} for n, loss in enumerate(COURSE)]
    entries = raw_log(rows).entries
    assert [entry["epoch"] for entry in entries] == list(range(1, 11))
    assert [entry["step"] for entry in entries] == list(range(1, 11))


def test_history_of_a_run_of_heldout_is_a_log(tmp_path):
    rows = [{"step": n, "epoch": n / 2, "validation_nll": x} for n, x in enumerate(COURSE, 1)]
    file = tmp_path / "history.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [loss for _, _, loss in evaluations(file)[0]] == COURSE
