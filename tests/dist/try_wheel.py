"""Try an installed heldout as a new user does: ``python try_wheel.py`` in an environment of its own.

Run by `make dist`, in an empty folder, where no source of this project can be imported.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import heldout

SHORT = ("train.learning_rate=2e-3", "train.max_epochs=2", "control.fixed_epochs=1")


def command(*words: str) -> str:
    """What ``heldout`` prints; it must succeed."""
    script = Path(sys.executable).parent / "heldout"
    return subprocess.run([script, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def try_commands() -> None:
    """The version, the catalog, and a short form of the demo with its report."""
    assert command("--version").split() == ["heldout", version("heldout")]
    assert "r_drop" in command("list")
    settings = [word for setting in SHORT for word in ("--set", setting)]
    found = json.loads(command("fit", "--demo", "--out", "run", "--json", *settings))
    assert found["figures"]["test_nll_best"] < found["figures"]["test_nll_base"], found["figures"]
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "</html>" in page and len(page.encode()) <= 400_000


def try_attach() -> None:
    """Two techniques on a Trainer of one's own."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    ids = torch.arange(12)
    arguments = TrainingArguments(
        output_dir="attached", max_steps=2, report_to="none", use_cpu=True, save_strategy="no"
    )
    rows = [{"input_ids": ids, "labels": ids}] * 8
    trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=rows)
    heldout.attach(trainer, [heldout.Dropout(hidden=0.1), heldout.RDrop()])
    assert trainer.train().global_step == 2


if __name__ == "__main__":
    assert Path(heldout.__file__).is_relative_to(sys.prefix), heldout.__file__
    try_commands()
    try_attach()
    print(f"heldout {version('heldout')}: command line, demo and attach work as installed.")
