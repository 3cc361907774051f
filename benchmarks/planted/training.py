"""Train the embedded model as one plan says, faults and all, and keep what a diagnosis gets to see.

The loop is that of ``each_regularizer.py``: Adam with bias correction, warm-up and a linear fall.
"""

import json
import math
import random
import re
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from texts import ANOTHER, as_conversation, as_text, entry_of, general_rows, parts_of

from heldout.core.discovery import build
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.jobs.kit.checkpoints import save_model
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.lm.measuring.prompt_formats import FORMATS, prompt_of
from heldout.lm.tokenize import IGNORED, Window, collate, tokenize_row
from heldout.lm.weights import copies, trained_parameters
from heldout.training.steps import Steps

MODEL = "package:heldout"
MAX_LENGTH = 256
BATCH = 8
WARMUP_SHARE = 0.1
NUM_TRAIN = 48
MOST_TRAIN = 96  # of any plan
FULL_RATE, LORA_RATE = 1e-3, 9e-3  # found by search in each_regularizer.py
REGULARIZED: dict[str, dict[str, Any]] = {"l2_penalty": {}, "confidence_penalty": {}}
WELL_REGULARIZED = {**REGULARIZED, "kl_to_base": {}}


@dataclass(frozen=True)
class Plan:
    """One training; the defaults are the healthy one."""

    text: str
    seed: int
    num_train: int = NUM_TRAIN
    epochs: float = 4
    rate: float = FULL_RATE
    method: str = "full"
    regularizers: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(REGULARIZED))
    keep_best: bool = False  # save the epoch of the lowest validation loss, not the last one
    num_copied: int = 0  # rows that stand in the data ``copies`` times more
    copies: int = 0
    wrong_share: float = 0.0  # of the rows: the letters of every word are in disorder
    other_text: bool = False  # the training rows are of another kind than the held-out ones
    as_text: bool = False  # prompts and completions are one text
    fault: str = ""  # an impostor
    by_rows: bool = False  # parts are dealt by row, whatever the groups


@dataclass(frozen=True)
class Trained:
    """The folder holds model, train.jsonl, heldout.jsonl and other.jsonl."""

    folder: Path
    facts: dict[str, Any]
    heldout: DocumentLosses
    other: DocumentLosses
    seconds: float


def train(plan: Plan, folder: Path | None) -> Trained:
    """One training, measured on held-out rows and on text of another kind.

    ``folder`` None: nothing is written, as for a repair, of which only the loss counts.
    """
    begin = time.process_time()
    recipe = recipe_of(plan)
    loaded = Target(MODEL).load(recipe)
    model, tokenizer = prepare(loaded, recipe), loaded.tokenizer
    parts = rows_of(plan)
    windows = windows_of(plan, parts, tokenizer)
    steps_per_epoch = math.ceil(len(windows) / BATCH)
    total = max(1, round(steps_per_epoch * plan.epochs))
    regularizers = [build("regularizer", n, v) for n, v in plan.regularizers.items()]
    steps = Steps(model, regularizers, total_steps=total, recipe=recipe, evaluates=True)
    warmup = max(1, round(WARMUP_SHARE * total))
    optimizer = torch.optim.AdamW(steps.parameter_groups(plan.rate), lr=plan.rate, fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (total - step) / (total - warmup + 1)),
    )
    history, best = [], copies(trained_parameters(model))

    def measure(loss: float | None) -> None:
        nonlocal best
        found = losses_of(model, tokenizer, parts["validation"], recipe)
        history.append((steps.step, steps.step / steps_per_epoch, loss, found))
        if found.nats_per_token <= min(point[3].nats_per_token for point in history):
            best = copies(trained_parameters(model))

    measure(None)
    every = steps_per_epoch * math.ceil(plan.epochs / 8) if plan.epochs > 2 else max(1, total // 4)
    with steps.attached():
        losses = []
        for items in batches(windows, plan, total):
            batch = collate(items, tokenizer.pad_token_id)
            losses.append(steps.gradient([batch]))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps.done(optimizer)
            optimizer.zero_grad()
            falling.step()
            if steps.step % every == 0 or steps.step in (steps_per_epoch, total):
                measure(float(np.mean(losses)))
                losses = []
    kept = (
        min(history, key=lambda point: point[3].nats_per_token) if plan.keep_best else history[-1]
    )
    if plan.keep_best:
        with torch.no_grad():
            for name, parameter in trained_parameters(model).items():
                parameter.copy_(best[name])
    heldout = losses_of(model, tokenizer, parts["heldout"], recipe)
    other = losses_of(model, tokenizer, parts["other"], recipe)
    facts = facts_of(plan, recipe, history, kept)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_model(model, tokenizer, folder / "model")
        spoil(plan, folder / "model")
        for part in ("train", "heldout", "other"):
            lines = [json.dumps(entry_of(row)) + "\n" for row in parts[part]]
            (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return Trained(folder or Path(), facts, heldout, other, time.process_time() - begin)


def recipe_of(plan: Plan) -> Recipe:
    return replace(Recipe(), regularizers=plan.regularizers).replace(
        data={"max_length": MAX_LENGTH, "group": "group"},
        model={"method": plan.method},
        train={"batch_size": BATCH, "micro_batch_size": BATCH, "seed": plan.seed},
        eval={"batch_size": 24},
    )


def facts_of(plan: Plan, recipe: Recipe, history: list, kept: tuple) -> dict[str, Any]:
    """What the log and the recipe of such a training tell: fields of ``Facts``."""
    lowest = min((point[3] for point in history), key=lambda found: found.nats_per_token)
    points = []
    for step, epoch, loss, found in history:
        error = None
        if found is not lowest:
            interval = found.minus(lowest).interval
            error = (interval.high - interval.low) / (2 * 1.96)
        points.append(
            {
                "step": step,
                "epoch": epoch,
                "train_nll": loss,
                "validation_nll": found.nats_per_token,
                "validation_error": error,
            }
        )
    return {
        "epochs": kept[1],
        "total_epochs": history[-1][1],
        "learning_rate": plan.rate,
        "best_learning_rate": None,
        "batch_size": BATCH,
        "method": plan.method,
        "from_scratch": False,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "regularizers": list(plan.regularizers),
        "history": points,
    }


# The rows


def rows_of(plan: Plan) -> dict[str, list[Row]]:
    """What is trained on and what is held out, with the plan's faults of data."""
    parts = parts_of(plan.text, plan.num_train, plan.seed)
    if plan.by_rows:
        parts = dealt_by_rows(plan)
    parts["other"] = list(general_rows())
    if plan.other_text:
        another = parts_of(ANOTHER[plan.text], plan.num_train, plan.seed)
        parts |= {part: another[part] for part in ("train", "validation")}
    if plan.as_text:
        parts = {part: list(map(as_text, rows)) for part, rows in parts.items()}
    if plan.fault == "wrong_chat_template":
        parts = {part: list(map(_conversation, rows)) for part, rows in parts.items()}
    draw = random.Random(f"{plan.text} {plan.seed}")
    train = list(parts["train"])
    if plan.wrong_share:
        train = with_wrong_rows(train, plan.wrong_share, draw)
    train += [row for row in train[: plan.num_copied] for _ in range(plan.copies)]
    if plan.fault == "validation_leaked":
        train += parts["heldout"][: len(parts["heldout"]) // 2]
    parts["train"] = [replace(row, index=place) for place, row in enumerate(train)]
    return parts


def dealt_by_rows(plan: Plan) -> dict[str, list[Row]]:
    """Each row in a part by chance, as without groups; training rows nested for one seed."""
    parts = parts_of(plan.text, MOST_TRAIN, plan.seed)
    rest = [row for rows in parts.values() for row in rows]
    random.Random(f"by rows {plan.seed}").shuffle(rest)
    found = {part: [rest.pop() for _ in parts[part]] for part in ("heldout", "validation")}
    return {**found, "train": rest[-plan.num_train :]}


def _conversation(row: Row) -> Row:
    if row.kind == "completion":
        return as_conversation(row)
    begin, _, end = row.text.partition(" ")
    messages = ({"role": "user", "content": begin}, {"role": "assistant", "content": end})
    return replace(row, messages=messages)


def with_wrong_rows(rows: list[Row], share: float, draw: random.Random) -> list[Row]:
    """A share of the rows with the letters of every word of the text, or answer, in disorder."""
    found = list(rows)
    for place in draw.sample(range(len(rows)), round(share * len(rows))):
        *before, last = rows[place].messages
        content = re.sub(
            r"\w+", lambda word: "".join(draw.sample(word[0], len(word[0]))), last["content"]
        )
        found[place] = replace(rows[place], messages=(*before, {**last, "content": content}))
    return found


# The windows


def windows_of(plan: Plan, parts: dict[str, list[Row]], tokenizer: Any) -> list[Window]:
    """Tokens and labels, with the plan's setup faults."""
    rows = parts["train"]
    found = [window for row in rows for window in tokenize_row(row, tokenizer, MAX_LENGTH).windows]
    if plan.fault == "eos_lost":
        return [Window(w.input_ids[:-1], w.labels[:-1]) for w in found]
    if plan.fault == "doubled_bos":
        start = tokenizer.bos_token_id
        return [Window([start, start, *w.input_ids], [IGNORED, IGNORED, *w.labels]) for w in found]
    if plan.fault == "masking_broken":
        return [
            Window(
                w.input_ids,
                [
                    token if label == IGNORED and place else IGNORED
                    for place, (token, label) in enumerate(zip(w.input_ids, w.labels, strict=True))
                ],
            )
            for w in found
        ]
    if plan.fault == "wrong_chat_template":
        return [other_template(row, tokenizer) for row in rows]
    return found


def other_template(row: Row, tokenizer: Any) -> Window:
    """A conversation in a common template that is not the tokenizer's own."""
    answer = row.messages[-1]["content"]
    prompt = prompt_of(row, FORMATS["Alpaca"])
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    after = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return Window(before + after, [IGNORED] * len(before) + after)


def spoil(plan: Plan, folder: Path) -> None:
    """Another order of the vocabulary, so that every id means another token."""
    if plan.fault != "tokenizer_mismatch":
        return
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = table["model"]["vocab"]
    special = {entry["content"] for entry in table["added_tokens"]}
    names = [name for name in vocabulary if name not in special]
    ids = [vocabulary[name] for name in names]
    random.Random(plan.seed).shuffle(ids)
    vocabulary.update(zip(names, ids, strict=True))
    path.write_text(json.dumps(table), encoding="utf-8")


def batches(windows: list[Window], plan: Plan, total: int):
    """The windows of every step, in an order that follows from the seed alone."""
    done, epoch = 0, 0
    while True:
        generator = torch.Generator().manual_seed(1000 * plan.seed + epoch)
        order = torch.randperm(len(windows), generator=generator).tolist()
        for start in range(0, len(order), BATCH):
            yield [windows[place] for place in order[start : start + BATCH]]
            done += 1
            if done == total:
                return
        epoch += 1
