"""Optimizer steps in bfloat16 on a CPU: of the embedded model, and of LoRA on a 135M one.

    python benchmarks/bfloat16_steps.py [--repeats 6] [--models embedded 135m] [--note "..."]

CPU time of forward, backward and AdamW on one thread; the ways take turns on the same batch.
``float32``; ``autocast`` to bfloat16 over float32 weights; ``bf16_base``: autocast, with the frozen
base stored in bfloat16 and float32 adapters. Lengths are 128 tokens in each batch, or new ones in
every batch (a kernel is compiled for each new shape), or new ones rounded up to 16. The embedded
model trains all its weights, 8 rows; the other is a random Llama of SmolLM2-135M's shape with LoRA
of rank 8 on all linear layers, 4 rows. ``loss_difference``: mean over batches of the loss in nats
per token less that of float32 on the same batches, both trained on; one seed.

``trained_loss_difference``: the embedded model trained on the demonstration's answers (60 steps of
8, three orders of the rows) under autocast less in float32, as measured in float32 on its 480 test
answers, in nats per token: the mean over seeds, and the largest.

Criterion for ``train.precision = auto`` on a CPU, fixed before the run: bfloat16 where the ratio to
float32 with changing lengths is <= .8, else float32.
"""

import argparse
import hashlib
import random
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from record import write_record
from transformers import LlamaConfig, LlamaForCausalLM

import heldout
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.lm.load import load_tokenizer
from heldout.lm.nll import document_losses
from heldout.lm.scored_loss import scored_loss
from heldout.lm.tokenize import collate, tokenize_row

EMBEDDED = Path(heldout.__file__).parent / "assets" / "demo_model"
SEEDS = (0, 1, 2)
ROWS = {"embedded": 8, "135m": 4}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--models", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    table = []
    for model in options.models:
        ways = ["float32", "autocast"] + (["bf16_base"] if model == "135m" else [])
        trained = {way: model_and_optimizer(model, way) for way in ways}
        for kind, lengths in kinds_of_lengths(options.repeats).items():
            seconds, losses = steps(trained, ROWS[model], lengths, warm_up=kind == "fixed")
            for way in ways[1:]:
                pairs = zip(seconds[way], seconds["float32"], strict=True)
                figures[f"{model}_{way}_over_float32_{kind}"] = statistics.median(
                    one / other for one, other in pairs
                )
                pairs = zip(losses[way], losses["float32"], strict=True)
                figures[f"{model}_{way}_loss_difference_{kind}"] = statistics.mean(
                    one - other for one, other in pairs
                )
            table.append({"model": model, "lengths": kind, "seconds": seconds})
            print(model, kind, figures, flush=True)
    if "embedded" in options.models:
        differences = trained_differences()
        figures["embedded_trained_loss_difference"] = statistics.mean(differences)
        figures["embedded_trained_loss_difference_largest"] = max(differences, key=abs)
        table.append({"model": "embedded", "trained_loss_differences": differences})
    print(
        write_record(
            "bfloat16_steps",
            figures,
            table=table,
            seeds=list(SEEDS),
            data_sha256=hashlib.sha256(repr(ROWS).encode()).hexdigest(),
            note=f"1 thread, CPU seconds, random tokens. {options.note}".strip(),
        )
    )


def kinds_of_lengths(number: int) -> dict[str, list[int]]:
    draw = random.Random(0)
    rounded = [-(-length // 16) * 16 for length in draw.sample(range(65, 190), number)]
    changing = draw.sample(range(65, 190), number)
    return {"fixed": [128] * (number + 1), "changing": changing, "rounded": rounded}


def model_and_optimizer(name: str, way: str):
    torch.manual_seed(0)
    if name == "embedded":
        model = LlamaForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    else:
        shape = LlamaConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(shape)
        if way == "bf16_base":
            model = model.bfloat16()
        adapter = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    model.train()
    return model, torch.optim.AdamW(trained, lr=1e-4)


def steps(trained: dict, rows: int, lengths: list[int], *, warm_up: bool) -> tuple[dict, dict]:
    """CPU seconds and losses of each way, a step for each length."""
    seconds: dict = {way: [] for way in trained}
    losses: dict = {way: [] for way in trained}
    for number, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(number)
        ids_BT = torch.randint(4096, (rows, length), generator=generator)
        batch = {"input_ids": ids_BT, "labels": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
        for way, (model, optimizer) in trained.items():
            plain = way == "float32"
            begin = time.process_time()
            with nullcontext() if plain else torch.autocast("cpu", torch.bfloat16):
                loss, num_tokens = scored_loss(model, batch)
            (loss / num_tokens).backward()
            optimizer.step()
            optimizer.zero_grad()
            if not (warm_up and number == 0):
                seconds[way].append(time.process_time() - begin)
                losses[way].append(loss.item() / num_tokens)
    return seconds, losses


def trained_differences() -> list[float]:
    """Test loss after training under autocast less that after training in float32, of each seed."""
    tokenizer = load_tokenizer("package:heldout")
    parts = {
        name: [row_of(number, row) for number, row in enumerate(rows)]
        for name, rows in question_answer_rows().items()
    }
    found = []
    for seed in SEEDS:
        losses = {}
        for way in ("float32", "autocast"):
            model, optimizer = model_and_optimizer("embedded", way)
            draw = random.Random(seed)
            for _ in range(60):
                rows = draw.sample(parts["train"], 8)
                windows = [tokenize_row(row, tokenizer, 512).windows[0] for row in rows]
                batch = collate(windows, tokenizer.pad_token_id)
                with nullcontext() if way == "float32" else torch.autocast("cpu", torch.bfloat16):
                    loss, num_tokens = scored_loss(model, batch)
                (loss / num_tokens).backward()
                optimizer.step()
                optimizer.zero_grad()
            nats = document_losses(model, parts["test"], tokenizer, max_length=512, batch_size=16)
            losses[way] = float(nats.nll_nats_D.sum() / nats.num_tokens_D.sum())
        found.append(losses["autocast"] - losses["float32"])
        print(seed, losses, flush=True)
    return found


def row_of(number: int, row: dict[str, str]) -> Row:
    messages = tuple({"role": part, "content": row[part]} for part in ("prompt", "completion"))
    return Row(number, messages, row["group"])


if __name__ == "__main__":
    main()
