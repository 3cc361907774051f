"""A training is measured as it goes, under a plain Trainer."""

import json

import pytest
import torch

import heldout
from heldout.core.errors import UserError
from heldout.lm.load import load_model


@pytest.fixture(scope="module")
def texts(english_text):
    paragraphs = [" ".join(p.split()) for p in english_text.split("\n\n")]
    kept = [p[:200] for p in paragraphs if len(p) > 200]
    return kept[:32], kept[100:132]


@pytest.mark.slow
def test_memorization_rises_with_training(tiny_model_dir, texts, tmp_path):
    from transformers import Trainer, TrainingArguments

    loaded = load_model(str(tiny_model_dir), device="cpu")
    train, unseen = (
        [loaded.tokenizer.decode(loaded.tokenizer(text)["input_ids"][:40]) for text in part]
        for part in texts
    )
    callback = heldout.DiagnoseCallback(train, unseen, loaded.tokenizer, out=tmp_path / "log")
    items = []
    for text in train:
        ids = loaded.tokenizer(text)["input_ids"]
        items.append({"input_ids": torch.tensor(ids[:40]), "labels": torch.tensor(ids[:40])})
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=90,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=120,
        logging_strategy="no",
    )
    trainer = Trainer(
        loaded.model,
        arguments,
        train_dataset=items,
        eval_dataset=items[:2],
        callbacks=[callback],
    )
    trainer.state.is_world_process_zero = True
    weights = {name: p.clone() for name, p in loaded.model.named_parameters()}
    state = torch.get_rng_state()
    callback.measure(loaded.model, trainer.state)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[n], p) for n, p in loaded.model.named_parameters())
    trainer.train()
    lines = (tmp_path / "log" / "diagnosis.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert entries == callback.entries
    first, last = entries[0], entries[-1]
    assert first["step"] == 0
    assert [entry["step"] for entry in entries] == [0, 0, 120, 240, 360]
    assert last["train_nll"] < 0.5 * first["train_nll"]
    assert last["gap"] > first["gap"] + 1
    assert first["recital"]["difference"] == 0
    assert last["recital"]["low"] > 0


def test_bad_rows_are_refused(tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match="must not be empty"):
        heldout.DiagnoseCallback([], ["a"], tiny_tokenizer, out=tmp_path)
    with pytest.raises(UserError, match="got dict at 0"):
        heldout.DiagnoseCallback([{"text": "a"}], ["a"], tiny_tokenizer, out=tmp_path)


def test_trackers_of_an_attached_trainer_hear_what_is_found(tiny_model_dir, texts, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from transformers import Trainer, TrainingArguments

    loaded = load_model(str(tiny_model_dir), device="cpu")
    train, unseen = (part[:6] for part in texts)
    callback = heldout.DiagnoseCallback(train, unseen, loaded.tokenizer, out=tmp_path / "log")
    ids = torch.tensor(loaded.tokenizer(train[0])["input_ids"][:20])
    items = [{"input_ids": ids, "labels": ids}] * 3
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=3,
        per_device_train_batch_size=1,
        report_to=["tensorboard"],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer = Trainer(
        loaded.model, arguments, train_dataset=items, eval_dataset=items[:1], callbacks=[callback]
    )
    heldout.attach(trainer, [])
    trainer.train()
    (folder,) = (tmp_path / "out").glob("runs/*")
    events = EventAccumulator(str(folder))
    events.Reload()
    for name in ("train_nll", "heldout_nll", "gap"):
        heard = [(event.step, event.value) for event in events.Scalars(f"eval/{name}")]
        found = [(entry["step"], pytest.approx(entry[name])) for entry in callback.entries]
        assert [step for step, _ in heard] == [0, 2, 3]
        assert heard == found
    assert len(list(folder.iterdir())) == 1, "opened once"
