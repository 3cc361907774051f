"""Turn the pretrained model into package data, and record what it is.

`python package.py` takes the end of the training; `--provisional` the newest checkpoint, for use
before the end, and records nothing. Prints the figures.
"""

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from checkpoints import last_checkpoint
from corpus import CACHE, ROOT, read_corpus, token_lists
from scoring import bits_per_byte, compressed_bits_per_byte, nll_nats
from transformers import AutoModelForCausalLM, AutoTokenizer

from heldout.core.environment import hardware, versions

HERE = Path(__file__).resolve().parent
ASSETS = ROOT / "src" / "heldout" / "assets" / "demo_model"
PROMPTS = ("Fellow citizens of the Senate and", "And the LORD said unto Moses,", "Our economy is")
CARD = HERE / "card.md"


def main(argv=None):
    """Export, score and record the model; the exit status is 0 or an exception."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provisional", action="store_true", help="newest checkpoint, no record")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    source = CACHE / "final"
    if arguments.provisional:
        source = Path(last_checkpoint(CACHE / "checkpoints"))
    state = json.loads((source / "trainer_state.json").read_text())
    plan = json.loads((CACHE / "plan.json").read_text())
    export(source)
    figures, samples = measure()
    figures |= training_figures(state["log_history"], plan, state["global_step"])
    write_card(figures, samples)
    print(json.dumps(figures, indent=1))
    for prompt, text in samples.items():
        print(f"{prompt} |{text}")
    if not arguments.provisional:
        record(figures, samples, plan, state["log_history"])


def export(source):
    """Write weights in bfloat16, configuration and tokenizer into the package's assets."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.to(torch.bfloat16).save_pretrained(ASSETS)
    AutoTokenizer.from_pretrained(CACHE / "tokenizer").save_pretrained(ASSETS)
    path = ASSETS / "config.json"
    config = json.loads(path.read_text())
    config["dtype"] = "float32"
    config["use_cache"] = True
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    assert (ASSETS / "model.safetensors").stat().st_size <= 8e6


def measure():
    """Figures of the model as shipped on both held-out parts, and three greedy continuations."""
    corpus = read_corpus()
    tokenizer = AutoTokenizer.from_pretrained(ASSETS)
    model = AutoModelForCausalLM.from_pretrained(ASSETS).eval()
    figures = {"parameters": model.num_parameters()}
    for name, texts in (("later", corpus.later), ("validation", corpus.validation)):
        nats, count = nll_nats(model, token_lists(tokenizer, texts), tokenizer.eos_token_id)
        figures[f"nll_nats_{name}"] = nats / count
        figures["bits_per_byte" if name == "later" else "bits_per_byte_validation"] = bits_per_byte(
            nats, texts
        )
    figures["later_bytes"] = sum(len(text.encode()) for text in corpus.later)
    for name, bits in compressed_bits_per_byte(corpus.later).items():
        figures[f"bits_per_byte_{name}"] = bits
    samples = {}
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=60, do_sample=False)
        samples[prompt] = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    figures["megabytes"] = (ASSETS / "model.safetensors").stat().st_size / 1e6
    return figures, samples


def training_figures(log, plan, steps):
    """What the training took, from the trainer's log; seconds per step are the median interval."""
    training = [entry for entry in log if "loss" in entry]
    pairs = [
        (later["time"] - earlier["time"]) / (later["step"] - earlier["step"])
        for earlier, later in itertools.pairwise(training)
        if "time" in earlier and later["process"] == earlier["process"]
    ]
    figures = {
        "steps": steps,
        "epochs": steps * plan["tokens_per_step"] / plan["training_tokens"],
        "training_tokens": plan["training_tokens"],
        "training_bytes": plan["training_bytes"],
        "train_nll_nats_last_500_steps": statistics.mean(e["loss"] for e in training[-10:]),
    }
    if pairs:
        seconds = statistics.median(pairs)
        figures["seconds_per_step"] = seconds
        figures["tokens_per_second_pretraining"] = plan["tokens_per_step"] / seconds
        figures["hours_at_that_rate"] = steps * seconds / 3600
    return figures


def write_card(figures, samples):
    """Write README.md, made of card.md, beside the weights."""
    lines = "\n".join(
        f"- **{prompt}**{' '.join(text.split(' ')).rstrip()}".replace("\n", " / ")
        for prompt, text in samples.items()
    )
    (ASSETS / "README.md").write_text(CARD.read_text().format(samples=lines, **figures))


def record(figures, samples, plan, log):
    """Write log.jsonl and result.json beside this script."""
    lines = [json.dumps({k: v for k, v in entry.items() if k != "process"}) for entry in log]
    (HERE / "log.jsonl").write_text("\n".join(lines) + "\n")
    holds = figures["bits_per_byte"] < figures["bits_per_byte_xz"]
    result = {
        "experiment": "pretrain_demo_model",
        "claim": "A model of 2.6M parameters, pretrained on one processor core in about an hour, "
        "predicts later speeches that it never saw in fewer bits per byte than xz needs.",
        "claim_holds": "yes" if holds else "no",
        "summary": f"{figures['bits_per_byte']:.3f} bits per byte on speeches after 2000 (xz "
        f"{figures['bits_per_byte_xz']:.3f}, zlib {figures['bits_per_byte_zlib']:.3f}) and "
        f"{figures['bits_per_byte_validation']:.3f} on held-out speeches up to 2000, after "
        f"{figures['epochs']:.1f} epochs of {plan['training_tokens']:,} tokens.",
        "figures": figures,
        "table": [
            {"step": entry["step"], **{k: v for k, v in entry.items() if k.endswith("_loss")}}
            for entry in log
            if "eval_later_loss" in entry or "eval_validation_loss" in entry
        ],
        "greedy_continuations": samples,
        "hardware": f"{hardware()}; {plan['threads']} thread, the other core in use by other work",
        "versions": versions(),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "seeds": [0],
        "data_sha256": plan["corpus_sha256"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["experiments/pretrain_demo_model/launch.sh", *sys.argv[1:]]),
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
