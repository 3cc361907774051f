"""The head's loss without logits beside plain logits and others' ways, in bfloat16 and float32.

    python benchmarks/loss_bfloat16.py [--repeats 3] [--note "..."]

Forward and backward from hidden states and weight to the gradients of both, on one thread of a
CPU. All ways take turns in a process of their own; each turn is one call (of the small size 20),
after one of 8 tokens that sets kernels up. Time is CPU time, memory the highest resident size
during a call minus the resident size before. Ratios are medians over turns.

- ``plain``: ``F.cross_entropy(F.linear(hidden, weight), targets)``, the cheapest plain way; in
  bfloat16 its loss is rounded to bfloat16.
- ``plain_float32``: the same with the logits converted to float32, as transformers does.
- ``torch_chunked``: torch's ``F.linear_cross_entropy`` with ``LinearCrossEntropyOptions()``.
- Liger's kernel and cut-cross-entropy (25.1.1, also its ``impl="torch_compile"``) cannot be
  imported without Triton, hence not without a GPU: not available here.

The slow ``torch_chunked`` takes one turn in bfloat16, and none in float32 with 49k classes.

Criteria, fixed before the run: ``loss_bf16_over_plain`` <= 1.0 (against ``plain``, 4,096 tokens
and 49k classes), ``loss_bf16_memory_over_plain`` <= .15 against ``plain_float32``, whose loss is
the same; ``gradient_error_over_plain_float32`` (the larger of hidden's and weight's distance from
float64, 1,500 tokens and 8k classes) <= 1.1. The small size is the embedded model's. 2 CPU minutes.
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

from loss_memory import status_bytes
from record import write_record

SIZES = {"49k": (49_152, 4_096, 576), "4k": (4_096, 1_024, 192)}  # vocabulary, tokens, width
WAYS = ("ours", "plain", "plain_float32", "torch_chunked")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    parser.add_argument("--serve", nargs=3, metavar=("WAY", "SIZE", "TYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    figures: dict[str, float] = dict(gradient_errors())
    table = []
    for size, (vocabulary, tokens, width) in SIZES.items():
        for dtype in ("bfloat16", "float32"):
            found = turns(size, dtype, options.repeats)
            for way, runs in found.items():
                seconds = [run["seconds"] for run in runs]
                table.append(
                    {
                        "way": way,
                        "type": dtype,
                        "vocabulary": vocabulary,
                        "tokens": tokens,
                        "width": width,
                        "seconds": statistics.median(seconds),
                        "seconds_of_each": seconds,
                        "megabytes": statistics.median(run["bytes"] for run in runs) / 1e6,
                        "loss": runs[0]["loss"],
                    }
                )
                print(table[-1], flush=True)
            figures |= ratios(found, dtype, size)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    path = write_record(
        "loss_bfloat16",
        figures,
        table=table,
        seeds=[0],
        data_sha256=hashlib.sha256(json.dumps(SIZES).encode()).hexdigest(),
        note="1 thread, CPU seconds. Liger and cut-cross-entropy: not available without Triton. "
        f"{options.note}",
    )
    print(shown, path, sep="\n")


def ratios(found: dict[str, list[dict]], dtype: str, size: str) -> dict[str, float]:
    """Ours over each other way as medians over turns: time, and memory of the large size.

    What the small one takes is memory that the process already holds.
    """
    short = {"bfloat16": "bf16", "float32": "float32"}[dtype]
    end = "" if size == "49k" else f"_{size}"
    figures = {}
    for other in list(found)[1:]:
        for middle, key in (("", "seconds"), ("_memory", "bytes")):
            if key == "bytes" and size != "49k":
                continue
            figures[f"loss_{short}{middle}_over_{other}{end}"] = statistics.median(
                one[key] / two[key] for one, two in zip(found["ours"], found[other], strict=False)
            )
    if size == "49k":
        # The plain way of the memory figure is the one with the same loss.
        figures[f"loss_{short}_memory_over_plain_cheapest"] = figures.pop(
            f"loss_{short}_memory_over_plain"
        )
        figures[f"loss_{short}_memory_over_plain"] = figures.pop(
            f"loss_{short}_memory_over_plain_float32"
        )
    return figures


def turns(size: str, dtype: str, repeats: int) -> dict[str, list[dict]]:
    """The calls of each way, in turn."""
    slow = size == "49k" and dtype == "float32"
    ways = [way for way in WAYS if not (slow and way == "torch_chunked")]
    servers = {}
    for way in ways:
        command = [sys.executable, __file__, "--serve", way, size, dtype]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        servers[way] = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way, server in servers.items():
            if repeat and way == "torch_chunked":
                continue
            server.stdin.write("\n")
            server.stdin.flush()
            found[way].append(json.loads(server.stdout.readline()))
    for server in servers.values():
        server.stdin.close()
        server.wait()
    return found


def serve(way: str, size: str, dtype: str) -> None:
    """Answers each line read with the figures of one call."""
    import torch

    torch.set_num_threads(1)
    vocabulary, tokens, width = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    hidden_ND = torch.randn(tokens, width, generator=generator).to(kind).requires_grad_()
    weight_VD = torch.randn(vocabulary, width, generator=generator).mul_(0.02)
    weight_VD = weight_VD.to(kind).requires_grad_()
    targets_N = torch.randint(vocabulary, (tokens,), generator=generator)
    loss_of = loss_function(way)
    loss_of(hidden_ND[:8], weight_VD, targets_N[:8]).backward()
    for _ in sys.stdin:
        hidden_ND.grad = weight_VD.grad = None
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the highest size
        before = status_bytes("VmRSS")
        begin = time.process_time()
        calls = 1 if size == "49k" else 20
        for _ in range(calls):
            hidden_ND.grad = weight_VD.grad = None
            loss = loss_of(hidden_ND, weight_VD, targets_N)
            loss.backward()
        seconds = (time.process_time() - begin) / calls
        size_bytes = status_bytes("VmHWM") - before
        print(
            json.dumps({"seconds": seconds, "bytes": size_bytes, "loss": loss.item()}), flush=True
        )


def loss_function(way: str):
    """(hidden_ND, weight_VD, targets_N) -> mean loss."""
    import torch
    import torch.nn.functional as F

    from heldout.lm.linear_cross_entropy import linear_cross_entropy

    if way == "torch_chunked":
        options = torch.nn.LinearCrossEntropyOptions()
        return lambda *tensors: F.linear_cross_entropy(*tensors, options=options)
    return {
        "ours": lambda hidden, weight, targets: (
            linear_cross_entropy(hidden, weight, targets)[0] / len(targets)
        ),
        "plain": lambda hidden, weight, targets: F.cross_entropy(F.linear(hidden, weight), targets),
        "plain_float32": lambda hidden, weight, targets: F.cross_entropy(
            F.linear(hidden, weight).float(), targets
        ),
    }[way]


def gradient_errors() -> dict[str, float]:
    """Distance of bfloat16 gradients from float64's, ours over the plain ways'; several chunks."""
    import torch

    from heldout.lm.linear_cross_entropy import linear_cross_entropy

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1500, 256, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(8192, 256, generator=generator).mul_(0.1).bfloat16().requires_grad_()
    targets = torch.randint(8192, (1500,), generator=generator)

    def gradients(loss_of, *leaves):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        return [grad.double() for grad in torch.autograd.grad(loss_of(*leaves, targets), leaves)]

    plain = loss_function("plain")
    exact = gradients(plain, hidden.double(), weight.double())

    def errors(loss_of):
        found = gradients(loss_of, hidden, weight)
        pairs = zip(found, exact, strict=True)
        return [float((one - true).norm() / true.norm()) for one, true in pairs]

    ours = errors(
        lambda hidden, weight, targets: (
            linear_cross_entropy(hidden, weight, targets, chunk_tokens=256)[0] / len(targets)
        )
    )
    figures = {}
    for way in ("plain", "plain_float32"):
        theirs = errors(loss_function(way))
        figures[f"gradient_error_over_{way}"] = max(
            one / two for one, two in zip(ours, theirs, strict=True)
        )
    return figures


if __name__ == "__main__":
    main()
