"""Each remedy that is a command or code is run as it is written: by heldout and by TRL."""

import json
import re
import shlex
from functools import partial

import pytest
from datasets import interleave_datasets, load_dataset
from peft import LoraConfig
from test_remedies import KNOWN, all_remedies, runnable
from transformers import AutoTokenizer, EarlyStoppingCallback
from trl import SFTConfig, SFTTrainer

import heldout
from heldout.cli.main import command_line
from heldout.data.factbook import question_answer_rows

# TRL 1.16 sets options that transformers 5.23 has renamed: theirs to mend.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*is deprecated:FutureWarning"),
]


def written(trainer):
    """One of each setting that runs, by the remedy that has it."""
    found = {one.settings[trainer]: one.name for one in all_remedies(KNOWN)}
    return [pytest.param(runnable(text), id=name) for text, name in found.items() if runnable(text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_dir):
    """What the words in capitals stand for, under their own names."""
    folder = tmp_path_factory.mktemp("remedies")
    (folder / "BASE").symlink_to(tiny_model_dir)
    (folder / "MODEL").symlink_to(tiny_model_dir)
    parts = question_answer_rows(60, 30, 10, 2)
    rows = [
        json.dumps({"prompt": row["prompt"], "completion": row["completion"]}) + "\n"
        for row in [*parts["train"], *parts["validation"], *parts["test"]]
    ]
    for name, chosen in (
        ("DATA.jsonl", rows[:-40]),
        ("MORE.jsonl", rows[:-40]),
        ("GENERAL.jsonl", rows[-40:]),
        ("FILE.jsonl", rows[-40:]),
    ):
        (folder / name).write_text("".join(chosen), encoding="utf-8")
    (folder / "DIR").mkdir()
    for part in ("train", "validation"):
        (folder / "DIR" / f"{part}.jsonl").write_text("".join(rows[:4]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("text", written("heldout"))
def test_by_heldout(text, folder, tmp_path, monkeypatch):
    for file in folder.iterdir():
        if file.name != "DIR":  # a command makes it
            (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"\b(DATA|FILE)\b", r"\1.jsonl", text)
    if not text.startswith("heldout "):
        given = {"--model": "BASE", "--data": "DATA.jsonl"}
        added = [f"{option} {value}" for option, value in given.items() if option not in text]
        text = " ".join(["heldout fit", *added, text])
    for command in text.split(" && "):
        _, name, *arguments = shlex.split(command)
        more = {"fit": ["--dry-run", "--set", "data.max_length=128"], "check": ["--out", "found"]}
        command_line()([name, *arguments, *more[name]], standalone_mode=False)


@pytest.mark.parametrize("text", written("trl"))
def test_by_trl(text, folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = partial(
        SFTConfig,
        output_dir="out",
        max_steps=1,
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        save_only_model=True,
    )
    yours = load_dataset("json", data_files="DIR/train.jsonl", split="train")
    names = {
        "heldout": heldout,
        "SFTConfig": config,
        "LoraConfig": LoraConfig,
        "AutoTokenizer": AutoTokenizer,
        "EarlyStoppingCallback": EarlyStoppingCallback,
        "load_dataset": load_dataset,
        "interleave_datasets": interleave_datasets,
        "yours": yours,
        "general": yours,
        "of_that_kind": yours,
        "LONGEST_ROW": 64,
    }
    is_call = text.startswith("heldout.")
    arguments = {} if is_call else eval(f"dict({text})", dict(names))
    arguments = {"args": config(), "train_dataset": yours, "eval_dataset": yours} | arguments
    trainer = SFTTrainer("BASE", **arguments)
    if is_call:
        exec(text, {**names, "trainer": trainer})
    assert trainer.train().global_step == 1
