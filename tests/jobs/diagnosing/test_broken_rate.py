"""A rate that broke the embedded model, where no evaluation was made before training."""

import json
import shutil

import pytest
from transformers import Trainer, TrainingArguments

from heldout.data.factbook import question_answer_rows
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.lm.load import load_model

pytestmark = pytest.mark.slow
BASE = "package:heldout"
EPOCHS = 6


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A Trainer's output with a checkpoint an epoch, and its two files of texts."""
    folder = tmp_path_factory.mktemp("broken")
    loaded = load_model(BASE, device="cpu")
    tokenizer = loaded.tokenizer
    items = {}
    for part, rows in question_answer_rows(12, 1, 12, 2).items():
        texts = [f"{row['prompt']} {row['completion']}" for row in rows]
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
        ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id][:128] for text in texts]
        items[part] = [{"input_ids": each, "labels": each} for each in ids]
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        learning_rate=2e-2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="epoch",
        eval_strategy="epoch",
        logging_steps=4,
        seed=0,
    )
    trainer = Trainer(
        loaded.model,
        arguments,
        train_dataset=items["train"],
        eval_dataset=items["test"],
        processing_class=tokenizer,
    )
    trainer.train()
    return folder


def diagnosed(broken, target):
    return diagnose(
        target,
        train=broken / "train.jsonl",
        heldout=broken / "test.jsonl",
        base=BASE,
        settings=("data.max_length=128",),
        probes=("heldout_loss", "generalization_gap"),
        generate=False,
    )


def test_the_base_is_epoch_0_of_the_checkpoints(broken):
    found = diagnosed(broken, broken / "out")
    history = found.facts.history
    assert [point.epoch for point in history] == list(range(EPOCHS + 1))
    assert history[0].validation_nll < min(point.validation_nll for point in history[1:])
    assert found.verdict.verdicts["fit"].color == "red"
    assert found.kind["name"] == "broken"
    assert [cause.name for cause in found.verdict.causes] == ["learning_rate_too_high"]
    assert any("first epoch" in said for said in found.verdict.causes[0].evidence_for)


def test_the_base_is_epoch_0_of_a_log(broken, tmp_path):
    last = max((broken / "out").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.copytree(last, tmp_path / "model")
    found = diagnosed(broken, tmp_path / "model")
    assert [point.epoch for point in found.facts.history] == list(range(EPOCHS + 1))
    assert found.kind["name"] == "broken"
    assert found.verdict.causes[0].name == "learning_rate_too_high"
