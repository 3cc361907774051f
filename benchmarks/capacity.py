"""Bits per parameter that tiny models memorize of uniform random tokens, up to the plateau.

    python benchmarks/capacity.py            # trains what is not yet there, one thread
    python benchmarks/capacity.py --report   # writes the record of what is there

Models of one layer on sequences of 32 tokens. Every finished model is kept in ``.cache/capacity``
and not trained again. The same amount of text with fewer and with more steps shows how far the
plateau is a matter of training.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from record import write_record

from heldout.core.progress import Progress
from heldout.core.results.capacity import CapacityResult, Filled, plateaus
from heldout.jobs.planning.capacity import capacity
from heldout.report.capacity import write_capacity

FOLDER = Path(".cache/capacity")
LENGTH = 32
# Width 32 has about 22,000 parameters, width 64 about 70,000.
CONFIGS = {
    width: {
        "model_type": "llama",
        "vocab_size": 128,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": LENGTH + 1,
        "tie_word_embeddings": False,
    }
    for width in (32, 64)
}
RATES = {32: 3e-2, 64: 1.5e-2}
# (width, bits of text per parameter, steps), what matters most first.
MODELS = [
    (32, 3.0, 2000),
    (32, 4.5, 2000),
    (32, 1.0, 2000),
    (32, 6.0, 2000),
    (32, 2.0, 2000),
    (32, 4.5, 6000),
    (32, 0.5, 2000),
    (32, 3.0, 500),
    (64, 3.0, 6000),
    (64, 4.5, 6000),
    (64, 2.0, 6000),
    (64, 1.0, 6000),
]
PAGE_STEPS = {32: 2000, 64: 6000}  # about as many readings of each sequence


class Lines(Progress):
    """Nothing but the figures, one line each."""

    def advance(self, num: int = 1, text: str = "") -> None:
        if text:
            print(text, flush=True)


def fill(width: int, load: float, steps: int, seed: int) -> CapacityResult:
    path = FOLDER / f"width-{width}.json"
    path.write_text(json.dumps(CONFIGS[width], indent=1), encoding="utf-8")
    return capacity(
        [path],
        loads=[load],
        steps=steps,
        length=LENGTH,
        learning_rate=RATES[width],
        seed=seed,
        out=FOLDER,
        progress=Lines(),
    )


def row(each: Filled) -> dict:
    bounds = each.memorized.interval
    return {
        "config": each.config,
        "parameters": each.parameters,
        "sequences": each.num_sequences,
        "steps": each.steps,
        "bits_of_text_per_parameter": each.load,
        "memorized_per_parameter": each.memorized.value,
        "low": bounds.low,
        "high": bounds.high,
        "more_than_heldout": each.memorized.contrasts["heldout"].difference,
        "cpu_seconds": each.seconds,
    }


def report(filled: list[Filled], seed: int) -> None:
    """One plateau for each size, over all amounts and numbers of steps."""
    found = plateaus(filled)
    figures: dict[str, float] = {}
    for each in found:
        figures |= {
            f"bits_per_parameter_plateau_{each.config}": each.bits_per_parameter,
            f"bits_per_parameter_plateau_{each.config}_low": each.low,
            f"parameters_{each.config}": each.parameters,
            f"load_at_plateau_{each.config}": each.load,
            f"steps_at_plateau_{each.config}": each.steps,
        }
    best = max(found, key=lambda each: each.bits_per_parameter)
    figures["bits_per_parameter_plateau"] = best.bits_per_parameter
    same = [each for each in filled if each.steps == PAGE_STEPS[int(each.config.split("-")[1])]]
    result = CapacityResult(same, plateaus(same), {"length": LENGTH, "seed": seed}, [])
    write_capacity(result, FOLDER / "report.html")
    table = [row(each) for each in filled]
    data = hashlib.sha256(json.dumps([CONFIGS, LENGTH, seed]).encode()).hexdigest()
    path = write_record(
        "capacity",
        figures,
        table=table,
        seeds=[seed],
        data_sha256=data,
        command="python benchmarks/capacity.py",
        note=f"{len(filled)} of {len(MODELS)} models. Lower bounds: training was finite, and more "
        "steps memorize more (see the table). Tokens are drawn from the seed; the hash is of "
        "configurations, length and seed.",
    )
    print(json.dumps(figures, indent=1), path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = FOLDER / "models.jsonl"
    if not options.report:
        for width, load, steps in MODELS:
            (each,) = fill(width, load, steps, options.seed).filled
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"seed": options.seed, **each.to_json()}) + "\n")
    found: dict[tuple, Filled] = {}
    for line in lines.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.pop("seed") == options.seed:
            found[entry["config"], entry["load"], entry["steps"]] = Filled.from_json(entry)
    report(list(found.values()), options.seed)


if __name__ == "__main__":
    main()
