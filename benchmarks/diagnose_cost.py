"""What a diagnosis costs: reading a text beside a plain evaluation of it, and verbatim matching.

    python benchmarks/diagnose_cost.py --part readings|verbatim [--repeats 5]

``readings``: CPU time of the pass that feeds all teacher-forced probes over that of
``document_losses``, which takes the loss alone, on the same rows in turn on one thread; the ratio
is the median over turns. In it is the base model's pass over what was written, on which the light
*generation* rests: 64 prompts with what base, model and people wrote there, to 800 rows that two
models read. ``ratio_to_evaluation`` is the larger of two models': the embedded one
(vocabulary 4,096) and one of SmolLM2-135M's shape (vocabulary 49,152, random weights). Beside them
stands a small body with the large vocabulary, the least favorable case. Rows are 400 to 1,600
characters of the documentation that comes with Python.

Each part keeps its figures in ``.cache/diagnose_cost/``; the record is written when both are there.
``readings`` takes about 2 minutes. ``verbatim`` is described in ``verbatim_matching.py``.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

import numpy as np
import torch
from record import write_record
from transformers import LlamaConfig, LlamaForCausalLM
from verbatim_matching import measure_verbatim

from heldout.core.row import Row
from heldout.jobs.demo import MODEL
from heldout.jobs.evidence.model_on_part import NEW_TOKENS, NUM_PROMPTS
from heldout.lm.load import load_model
from heldout.lm.measuring.generations import PROMPT_TOKENS, continuation_nats
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.nll import document_losses
from heldout.lm.tokenize import tokenize_row

FOLDER = Path(".cache/diagnose_cost")
PARTS = ("readings", "verbatim")
OPTIONS = {"max_length": 512, "batch_size": 8}
SMOLLM2 = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
SMALL_BODY = {
    **SMOLLM2,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
}
ROW_READINGS = 2 * 2 * 400  # of a diagnosis: two models on two parts
NUM_WRITTEN = 4  # prompts, each with three texts, that the base model's pass over them is timed on
NUM_ROWS = {"embedded": 32, "49k": 4, "49k_small_body": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "readings": partial(measure_pass_statistics, options.repeats),
        "verbatim": measure_verbatim,
    }
    found = measure[options.part]()
    print(json.dumps(found, indent=2))
    path = FOLDER / f"{options.part}.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    kept = [FOLDER / f"{part}.json" for part in PARTS]
    if all(path.exists() for path in kept):
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in kept]
        digests = "".join(part["data_sha256"] for part in parts)
        record = write_record(
            "diagnose_cost",
            {name: value for part in parts for name, value in part["figures"].items()},
            table=[line for part in parts for line in part["table"]],
            seeds=[0],
            data_sha256=hashlib.sha256(digests.encode()).hexdigest(),
            command=" && ".join(f"python benchmarks/diagnose_cost.py --part {p}" for p in PARTS),
            note=options.note,
        )
        print(f"wrote {record}")


def measure_pass_statistics(repeats: int) -> dict[str, Any]:
    """Ratios and seconds by model."""
    loaded = load_model(MODEL, device="cpu")
    models = {
        "embedded": loaded.model,
        "49k": random_model(SMOLLM2),
        "49k_small_body": random_model(SMALL_BODY),
    }
    digest = hashlib.sha256()
    table = []
    for name, model in models.items():
        rows = python_documentation(NUM_ROWS[name])
        digest.update("\0".join(row.text for row in rows).encode())
        turns = []
        for turn in range(repeats + 1):
            plain = cpu_seconds(partial(document_losses, model, rows, loaded.tokenizer, **OPTIONS))
            full = cpu_seconds(partial(pass_statistics, model, rows, loaded.tokenizer, **OPTIONS))
            written = cpu_seconds(partial(read_what_was_written, model, rows, loaded.tokenizer))
            full += written * len(rows) * NUM_PROMPTS / (NUM_WRITTEN * ROW_READINGS)
            if turn:  # the first one warms up
                turns.append((plain, full))
                print(f"{name}: {full / plain:.3f} of {plain:.2f} s", flush=True)
        table.append(
            {
                "model": name,
                "rows": len(rows),
                "tokens": sum(tokenize_row(r, loaded.tokenizer, 512).num_tokens for r in rows),
                "ratio_to_evaluation": median(full / plain for plain, full in turns),
                "evaluation_cpu_seconds": median(plain for plain, _ in turns),
                "readings_cpu_seconds": median(full for _, full in turns),
                "turns": len(turns),
            }
        )
    ratios = {line["model"]: line["ratio_to_evaluation"] for line in table}
    return {
        "figures": {
            "ratio_to_evaluation": max(ratios["embedded"], ratios["49k"]),
            **{f"ratio_to_evaluation_{name}": ratio for name, ratio in ratios.items()},
        },
        "table": table,
        "data_sha256": digest.hexdigest(),
    }


def read_what_was_written(model: Any, rows: list[Row], tokenizer: Any) -> None:
    """One pass over prompts with three continuations each, as long as a diagnosis has them."""
    ids = [np.array(tokenizer(row.text).input_ids, dtype=np.int32) for row in rows[:NUM_WRITTEN]]
    prompts = [each[:PROMPT_TOKENS] for each in ids for _ in range(3)]
    texts = [np.roll(each, -32 * turn)[:NEW_TOKENS] for each in ids for turn in range(3)]
    continuation_nats(model, tokenizer, prompts, texts, batch_size=16)


def random_model(shape: dict[str, Any]) -> LlamaForCausalLM:
    """In evaluation mode, in float32."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=512)).eval()


def python_documentation(num: int) -> list[Row]:
    """Passages one after the other, of lengths that the seed decides."""
    rng = random.Random(0)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    rows, at = [], 0
    for index in range(num):
        size = rng.randint(400, 1600)
        rows.append(Row(index, ({"role": "text", "content": text[at : at + size]},), str(index)))
        at += size
    return rows


def cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
