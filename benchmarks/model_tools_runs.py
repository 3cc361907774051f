"""The runs of ``model_tools.py``: their rows, how they are trained, and what their folder holds."""

# ruff: noqa: I001 - the modules of the planted set stand in a folder of their own.

import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "planted"))

from peft import LoraConfig, get_peft_model
from run_of_trainer import ALPHA, RANK, Setup, trainer_of
from training import FULL_RATE, MAX_LENGTH, MODEL, Plan, recipe_of

from heldout.core.row import Row
from heldout.data.factbook import _package, _text, without_html
from heldout.jobs.kit.checkpoints import save_model
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.target import Target
from heldout.lm.tokenize import tokenize_row

CHARACTERS = (110, 170)  # of a sentence
NUM_HELDOUT, NUM_VALIDATION, NUM_LEAKED = 48, 24, 16
NUM_COPIED, COPIES = 4, 24
_NUMBER = re.compile(r"\d+(?:\.\d+)?")  # as contamcheck finds them


@dataclass(frozen=True)
class Kind:
    """How a run is trained; ``group`` is what is true of it."""

    group: str  # healthy, overfitted, leaked, broken or untrained
    num_train: int = 48
    epochs: float = 3
    rate: float = FULL_RATE
    lora: bool = False
    keep_best: bool = False
    copies: int = 0  # of each of the first rows
    leaked: bool = False  # a third of the held-out rows is trained on


KINDS = {
    "three epochs": Kind("healthy"),
    "the best of eight epochs": Kind("healthy", epochs=8, keep_best=True),
    "more rows": Kind("healthy", num_train=72, epochs=2),
    "LoRA": Kind("healthy", lora=True),
    "twenty epochs": Kind("overfitted", epochs=20),
    "few rows": Kind("overfitted", num_train=24, epochs=30),
    "rows copied 24 times": Kind("overfitted", epochs=6, copies=COPIES),
    "LoRA, twenty epochs": Kind("overfitted", epochs=20, lora=True),
    "leaked": Kind("leaked", leaked=True),
    "leaked, twelve epochs": Kind("leaked", epochs=12, leaked=True),
    "twenty times the rate": Kind("broken", rate=20 * FULL_RATE),
    "a twentieth of the rate": Kind("untrained", rate=FULL_RATE / 20),
}


@cache
def sentences() -> dict[str, tuple[str, ...]]:
    """By country, sentences of its history whose second half has a number that the first lacks."""
    factbook = _package()
    found = {}
    for country in sorted(factbook.list_countries()):
        text = without_html(_text(factbook.load_country(country), "Introduction", "Background"))
        fit = [
            sentence
            for sentence in re.split(r"(?<=[.;]) (?=[A-Z])", text)
            if CHARACTERS[0] <= len(sentence) <= CHARACTERS[1] and _has_new_number(sentence)
        ]
        if fit:
            found[country] = tuple(fit)
    return found


def _has_new_number(sentence: str) -> bool:
    words = sentence.split()
    before, after = (
        set(_NUMBER.findall(" ".join(half)))
        for half in (words[: len(words) // 2], words[len(words) // 2 :])
    )
    return not after <= before


def parts_of(kind: Kind, seed: int) -> dict[str, list[Row]]:
    """A sentence a country, and a country in one part only; nested over sizes for one seed."""
    names = sorted(sentences(), key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    rows = [
        Row(
            place, ({"role": "text", "content": sentences()[name][seed % len(sentences()[name])]},),
            name,
        )
        for place, name in enumerate(names)
    ]  # fmt: skip
    heldout, rest = rows[:NUM_HELDOUT], rows[NUM_HELDOUT:]
    validation, rest = rest[:NUM_VALIDATION], rest[NUM_VALIDATION:]
    train = rest[: kind.num_train]
    assert len(train) == kind.num_train, "the Factbook has too few countries"
    train += [row for row in train[:NUM_COPIED] for _ in range(kind.copies)]
    if kind.leaked:
        train += heldout[:NUM_LEAKED]
    return {"train": train, "validation": validation, "heldout": heldout}


def write_run(
    kind: Kind, seed: int, canaries: list[str], folder: Path, most_steps: int
) -> dict[str, Any]:
    """Train with transformers' Trainer; the folder gets ``out/``, with whole weights, and the rows.

    ``canaries`` are texts that are trained on beside the rows. Returns the held-out loss of what
    was saved and of the base, and how far the validation loss rose after its lowest.
    """
    parts = parts_of(kind, seed)
    parts["train"] += [
        Row(0, ({"role": "text", "content": text},), f"canary {number}")
        for number, text in enumerate(canaries)
    ]
    plan = Plan("factbook", seed, epochs=kind.epochs, rate=kind.rate)
    recipe = recipe_of(plan)
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = loaded.model, loaded.tokenizer
    base_nll = losses_of(model, tokenizer, parts["heldout"], recipe).nats_per_token
    if kind.lora:
        lora = LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, lora)
    windows = {
        part: [w for row in parts[part] for w in tokenize_row(row, tokenizer, MAX_LENGTH).windows]
        for part in ("train", "validation")
    }
    setup = Setup("trainer", kind.lora, True, "best" if kind.keep_best else "last", False)
    trainer = trainer_of(
        plan, setup, model, tokenizer, windows["train"], windows["validation"],
        folder / "steps", most_steps,
    )  # fmt: skip
    trainer.train()
    losses = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    model.eval()
    heldout_nll = losses_of(model, tokenizer, parts["heldout"], recipe).nats_per_token
    save_model(model.merge_and_unload() if kind.lora else model, tokenizer, folder / "out")
    for part in ("train", "heldout"):
        entries = [{"text": row.text, "group": row.group} for row in parts[part]]
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    return {
        "heldout_nll": heldout_nll,
        "base_nll": base_nll,
        "validation_rise": losses[-1] - min(losses),
    }
