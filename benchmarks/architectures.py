"""Does every causal architecture of transformers get the right loss, gradient, dropout and text?

python benchmarks/architectures.py [--work FOLDER] [--only NAME ...]

A tiny random model of each, built from its configuration. Losses against plain logits, alone and in
a padded batch; whether the model is right without padding; gradients of ``Steps`` and of a Trainer
under ``attach`` against autograd; dropout of each kind and LayerDrop: effective, or refused with
the reason; which parameters are decayed against how they are used; greedy text of a padded batch
against whole calls, one row at a time; saving and loading; LoRA. Verdicts go to FOLDER line by
line, so that a killed run goes on.
"""

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from record import write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "architectures"))

from judging import JUDGES, judged
from tiny_architectures import ALL, NOT_BUILT

# Criteria, set before the recorded run.
LEAST = {
    "tried": 180,
    "supported_loss": 165,
    "dropout_hidden_effective": 112,
    "dropout_attention_effective": 114,
    "layer_drop_effective": 135,
}
NONE = (
    "wrong_loss",
    "wrong_gradient",
    "silent_noop",
    "tracebacks",
    "wrong_generation",
    "decayed_wrongly",
)

LOSSES = ("loss_alone", "loss_batched")
GRADIENTS = ("gradient_steps", "gradient_trainer")
DROPS = ("dropout_hidden", "dropout_attention", "dropout_heads", "dropout_embedding", "layer_drop")


def is_fault(verdict: str) -> bool:
    """Neither right nor effective, nor a refusal, nor a traceback, which is counted by itself."""
    told = ("refused: ", "traceback: ")
    return verdict not in ("right", "effective") and not verdict.startswith(told)


def figures(table: list[dict[str, Any]]) -> dict[str, float]:
    """Counts over architectures."""

    def count(names: tuple[str, ...], holds: Any) -> int:
        return sum(any(name in row and holds(row[name]) for name in names) for row in table)

    effective = {f"{name}_effective": count((name,), "effective".__eq__) for name in DROPS}
    return {
        "tried": len(table),
        "supported_loss": sum(
            all(row[name] == "right" for name in LOSSES + GRADIENTS) for row in table
        ),
        **effective,
        "padding_left_out": count(("padding_left_out",), "right".__eq__),
        "wrong_loss": count(LOSSES, is_fault),
        "wrong_gradient": count(GRADIENTS, is_fault),
        "silent_noop": count(DROPS, is_fault),
        "wrong_generation": count(("generation",), is_fault),
        "decayed_wrongly": count(("decay",), is_fault),
        "wrong_after_loading": count(("save_and_load",), is_fault),
        "lora_trained": count(("lora",), "right".__eq__),
        "tracebacks": count(tuple(JUDGES), lambda verdict: verdict.startswith("traceback: ")),
        "not_built": len(NOT_BUILT),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("architectures_work"))
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    arguments.work.mkdir(parents=True, exist_ok=True)
    log = arguments.work / "verdicts.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    found = {row["architecture"]: row for row in map(json.loads, lines)}
    for name in arguments.only or [name for name in ALL if name not in NOT_BUILT]:
        if name in found:
            continue
        found[name] = {"architecture": name, **judged(name)}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found[name]) + "\n")
        faults = {k: v for k, v in found[name].items() if v.startswith("trace") or is_fault(v)}
        print(name, {k: v for k, v in faults.items() if k != "architecture"} or "", flush=True)
    if arguments.only:
        return
    table = [found[name] for name in ALL if name in found]
    counted = figures(table)
    missed = [f"{name} {counted[name]} < {least}" for name, least in LEAST.items()
              if counted[name] < least]  # fmt: skip
    missed += [f"{name} {counted[name]}" for name in NONE if counted[name]]
    not_built = [{"architecture": name, "not_built": why} for name, why in NOT_BUILT.items()]
    path = write_record(
        "architectures",
        counted,
        table=table + not_built,
        seeds=[0],
        command="python benchmarks/architectures.py",
        data_sha256=hashlib.sha256(" ".join(ALL).encode()).hexdigest(),
        note=f"transformers {transformers.__version__}. Criteria: "
        + (f"missed: {'; '.join(missed)}" if missed else "all met"),
    )
    print(path)


if __name__ == "__main__":
    main()
