"""Peak memory and time of the head and its loss, beside transformers' LabelSmoother.

    python benchmarks/loss_memory.py [--repeats 3] [--note "..."]

Forward and backward from hidden states and weight to the gradients of both, float32 on one thread
of a CPU, each run in a new process. Memory: the highest resident size during it minus the resident
size before, so inputs do not count and gradients do. Time: that of the CPU, which on one thread is
the clock's without the waiting for other processes. Ours is ``linear_cross_entropy``; theirs is
``nn.Linear``, then ``LabelSmoother``, or ``F.cross_entropy`` where nothing is smoothed. The ratios
are medians over pairs of runs that follow each other. About 10 minutes and 13 GB of memory.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import write_record

SMOOTHING = 0.1
SIZES = {  # name: (vocabulary, tokens, width)
    "49k": (49_152, 8_192, 576),
    "152k": (151_936, 4_096, 896),
}
PAIRS = (("ours_smoothing", "theirs_smoothing"), ("ours_plain", "theirs_plain"))
TERMS = ("ours_top_wrong_smoothing", "ours_z_loss", "ours_confidence_penalty", "ours_all_four")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    parser.add_argument("--run", nargs=2, metavar=("VARIANT", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measured(*options.run)))
        return
    figures: dict[str, float] = {}
    table = []
    digests = []
    for size in SIZES:
        runs: dict[str, list[dict]] = {}
        for repeat in range(options.repeats):
            pairs = PAIRS if repeat == 0 else PAIRS[:1]
            variants = [variant for pair in pairs for variant in pair]
            if repeat == 0 and size == "49k":
                variants += TERMS
            for variant in variants:
                runs.setdefault(variant, []).append(in_new_process(variant, size))
                print(size, variant, runs[variant][-1], flush=True)
        ours, theirs = (runs[variant] for variant in PAIRS[0])
        for one, other in zip(ours, theirs, strict=True):
            assert abs(one["loss"] / other["loss"] - 1) < 1e-5, "not the same loss"
        for figure, key in (("memory_ratio", "bytes"), ("time_ratio", "seconds")):
            figures[f"{figure}_{size}"] = statistics.median(
                one[key] / other[key] for one, other in zip(ours, theirs, strict=True)
            )
        digests.append(ours[0]["sha256"])
        vocabulary, tokens, width = SIZES[size]
        for variant, found in runs.items():
            table.append(
                {
                    "variant": variant,
                    "vocabulary": vocabulary,
                    "tokens": tokens,
                    "width": width,
                    "megabytes": statistics.median(run["bytes"] for run in found) / 1e6,
                    "seconds": statistics.median(run["seconds"] for run in found),
                    "seconds_of_each": [run["seconds"] for run in found],
                }
            )
    note = (
        "1 thread, float32, seconds of CPU time. Ratios: ours over theirs with label smoothing "
        f"{SMOOTHING}, medians of {options.repeats} pairs in new processes; other rows: one run. "
        f"{options.note}"
    )
    path = write_record(
        "loss_memory",
        figures,
        table=table,
        seeds=[0],
        data_sha256=hashlib.sha256("".join(digests).encode()).hexdigest(),
        note=note.strip(),
    )
    print(json.dumps(figures, indent=1))
    print(path)


def in_new_process(variant: str, size: str) -> dict:
    output = subprocess.run(
        [sys.executable, __file__, "--run", variant, size],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    return json.loads(output)


def measured(variant: str, size: str) -> dict:
    import torch

    torch.set_num_threads(1)
    vocabulary, tokens, width = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight_VD = torch.randn(vocabulary, width, generator=generator).mul_(0.02).requires_grad_()
    targets_N = torch.randint(vocabulary, (tokens,), generator=generator)
    loss_of = loss_function(variant)
    loss_of(hidden_ND[:8], weight_VD, targets_N[:8]).backward()  # kernels are set up
    hidden_ND.grad = weight_VD.grad = None
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the highest size
    before = status_bytes("VmRSS")
    begin = time.process_time()
    loss = loss_of(hidden_ND, weight_VD, targets_N)
    loss.backward()
    seconds = time.process_time() - begin
    assert hidden_ND.grad is not None
    assert weight_VD.grad is not None
    return {
        "bytes": status_bytes("VmHWM") - before,
        "seconds": seconds,
        "loss": loss.item(),
        "sha256": hashlib.sha256(targets_N.numpy().tobytes()).hexdigest(),
    }


def loss_function(variant: str):
    """(hidden_ND, weight_VD, targets_N) -> mean loss."""
    import torch.nn.functional as F
    from transformers.trainer_pt_utils import LabelSmoother

    from heldout.lm.linear_cross_entropy import linear_cross_entropy
    from heldout.regularizers.confidence_penalty import ConfidencePenalty
    from heldout.regularizers.label_smoothing import LabelSmoothing
    from heldout.regularizers.top_wrong_smoothing import TopWrongSmoothing
    from heldout.regularizers.z_loss import ZLoss

    if variant == "theirs_smoothing":
        smoother = LabelSmoother(epsilon=SMOOTHING)
        return lambda hidden_ND, weight_VD, targets_N: smoother(
            {"logits": F.linear(hidden_ND, weight_VD)}, targets_N.clone()
        )
    if variant == "theirs_plain":
        return lambda hidden_ND, weight_VD, targets_N: F.cross_entropy(
            F.linear(hidden_ND, weight_VD), targets_N
        )
    smoothing: Any = LabelSmoothing(amount=SMOOTHING)
    others: list[Any] = [TopWrongSmoothing(), ZLoss(), ConfidencePenalty()]
    used = {
        "ours_plain": [],
        "ours_smoothing": [smoothing],
        "ours_top_wrong_smoothing": others[:1],
        "ours_z_loss": others[1:2],
        "ours_confidence_penalty": others[2:],
        "ours_all_four": [smoothing, *others],
    }[variant]
    terms = [regularizer.token_loss for regularizer in used]
    return lambda hidden_ND, weight_VD, targets_N: (
        linear_cross_entropy(hidden_ND, weight_VD, targets_N, token_loss=terms)[0] / len(targets_N)
    )


def status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {key}: this benchmark needs Linux.")


if __name__ == "__main__":
    main()
