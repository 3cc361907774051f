"""Addition modulo a prime by a one-layer transformer, with weight decay 1 and without any.

    python experiments/grokking/run.py [--steps 2000] [--seeds 0 1 2]

Full batch, AdamW; the setup of Power et al. 2022 (arXiv 2201.02177) at the size of Nanda et al.
2023 (arXiv 2301.05217). A run that is in histories.json already is not repeated.
"""

# B pairs, T tokens of a pair and the "=", D width, V numbers

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from curves import Curve, Panel, write_curves  # noqa: E402
from result import write_result  # noqa: E402

PRIME = 37
TRAINING_SHARE = 0.55
WIDTH, HEADS, HIDDEN = 48, 4, 128
LEARNING_RATE = 5e-3
CONDITIONS = {"weight decay 1": 1.0, "no weight decay": 0.0}
FITTED, GENERALIZED = 0.99, 0.95  # accuracies


class OneLayer(nn.Module):
    """Embedding, attention, MLP and output, without norms or biases in the residual stream."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(PRIME + 1, WIDTH) / WIDTH**0.5)
        self.position = nn.Parameter(torch.randn(3, WIDTH) / WIDTH**0.5)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.unembedding = nn.Linear(WIDTH, PRIME, bias=False)

    def forward(self, tokens_BT):
        """Logits (B, V) at the last token, the only place where anything is predicted."""
        x_BTD = self.embedding[tokens_BT] + self.position
        num_pairs, head = len(tokens_BT), WIDTH // HEADS
        query = self.query(x_BTD[:, -1]).view(num_pairs, HEADS, 1, head)
        key, value = self.key_value(x_BTD).view(num_pairs, 3, 2, HEADS, head).unbind(2)
        weights = (query * key.transpose(1, 2)).sum(-1).div(head**0.5).softmax(-1)
        mixed = (weights[..., None] * value.transpose(1, 2)).sum(2).reshape(num_pairs, WIDTH)
        x_BD = x_BTD[:, -1] + self.out(mixed)
        return self.unembedding(x_BD + self.down(F.relu(self.up(x_BD))))


def pairs(seed):
    """Training and held-out pairs with their sums, split at random."""
    left, right = torch.meshgrid(torch.arange(PRIME), torch.arange(PRIME), indexing="ij")
    left, right = left.flatten(), right.flatten()
    tokens_BT = torch.stack([left, right, torch.full_like(left, PRIME)], dim=1)
    order = torch.randperm(len(left), generator=torch.Generator().manual_seed(seed))
    num_train = round(TRAINING_SHARE * len(left))
    sums = (left + right) % PRIME
    return [(tokens_BT[part], sums[part]) for part in (order[:num_train], order[num_train:])]


def is_logged(step, steps):
    """Densely at first, then every fiftieth of the run."""
    return step in (0, 1, 2, 5, 10, 20, 35, 50, 75) or step % max(1, steps // 60) == 0


@torch.no_grad()
def measure(model, part):
    """Loss in nats and accuracy."""
    logits_BV = model(part[0])
    right = (logits_BV.argmax(1) == part[1]).double().mean()
    return F.cross_entropy(logits_BV, part[1]).item(), right.item()


def train(weight_decay, seed, steps):
    """The history of one run, as columns."""
    torch.manual_seed(seed)
    training, held_out = pairs(seed)
    model = OneLayer()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    history = {
        name: []
        for name in (
            "step",
            "training_loss",
            "training_accuracy",
            "validation_loss",
            "validation_accuracy",
            "weight_norm",
        )
    }
    begin = time.process_time()
    for step in range(steps + 1):
        if is_logged(step, steps):
            norm = sum(p.detach().square().sum().item() for p in model.parameters()) ** 0.5
            values = (step, *measure(model, training), *measure(model, held_out), norm)
            for name, value in zip(history, values, strict=True):
                history[name].append(float(f"{value:.5g}"))
        loss = F.cross_entropy(model(training[0]), training[1])
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 10)
        optimizer.step()
    print(weight_decay, seed, steps, f"{time.process_time() - begin:.0f} s", flush=True)
    return history | {"core_seconds": round(time.process_time() - begin)}


def first_step(history, name, least):
    """The first logged step at which an accuracy reaches ``least``, or None."""
    reached = [s for s, a in zip(history["step"], history[name], strict=True) if a >= least]
    return reached[0] if reached else None


def main():
    """Run what is missing, then write histories, result and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "histories.json"
    histories = json.loads(path.read_text()) if path.exists() else {}
    for seed in arguments.seeds:
        for condition, weight_decay in CONDITIONS.items():
            name = f"{condition}, seed {seed}"
            if name not in histories:
                histories[name] = train(weight_decay, seed, arguments.steps)
                path.write_text(json.dumps(histories) + "\n")
    record(histories, arguments.seeds)


def record(histories, seeds):
    """Figures of all runs, and whether the claim holds in every seed."""
    table = []
    for seed in seeds:
        for condition in CONDITIONS:
            history = histories[f"{condition}, seed {seed}"]
            table.append(
                {
                    "arm": condition,
                    "seed": seed,
                    "step_fitted": first_step(history, "training_accuracy", FITTED),
                    "step_generalized": first_step(history, "validation_accuracy", GENERALIZED),
                    "validation_accuracy_last": history["validation_accuracy"][-1],
                    "validation_loss_highest": max(history["validation_loss"]),
                    "validation_loss_last": history["validation_loss"][-1],
                    "weight_norm_highest": max(history["weight_norm"]),
                    "weight_norm_last": history["weight_norm"][-1],
                }
            )
    decayed = [row for row in table if row["arm"] == "weight decay 1"]
    plain = [row for row in table if row["arm"] == "no weight decay"]
    late = [
        row["step_generalized"] / row["step_fitted"]
        for row in decayed
        if row["step_generalized"] and row["step_fitted"]
    ]
    grokked = len(late) == len(decayed) and min(late) >= 5
    without = any(row["step_generalized"] for row in plain)
    figures = {
        "validation_accuracy_weight_decay": sum(r["validation_accuracy_last"] for r in decayed)
        / len(decayed),
        "validation_accuracy_no_weight_decay": sum(r["validation_accuracy_last"] for r in plain)
        / len(plain),
        "num_grokked_weight_decay": len(late),
        "num_grokked_no_weight_decay": sum(bool(row["step_generalized"]) for row in plain),
        "num_seeds": len(seeds),
        "chance": 1 / PRIME,
        "core_seconds": sum(history["core_seconds"] for history in histories.values()),
    }
    if late:
        figures["times_later_lowest"], figures["times_later_highest"] = min(late), max(late)
    steps = int(histories[f"no weight decay, seed {seeds[0]}"]["step"][-1])
    write_result(
        HERE,
        claim="With weight decay 1, held-out accuracy on modular addition rises to at "
        "least .95 five or more times later than training accuracy reaches .99; without weight "
        "decay it does not within the same steps.",
        claim_holds="yes" if grokked and not without else "partly" if late else "no",
        summary=f"{len(late)} of {len(decayed)} seeds reach .95 on held-out pairs with weight decay"
        + (
            f", {min(late):.0f} to {max(late):.0f} times later than the training pairs"
            if late
            else ""
        )
        + f"; {figures['num_grokked_no_weight_decay']} of {len(plain)} without, in {steps} steps "
        f"(held-out accuracy {figures['validation_accuracy_no_weight_decay']:.2f}, chance "
        f"{1 / PRIME:.3f}).",
        figures=figures,
        table=table,
        seeds=seeds,
        data_sha256=hashlib.sha256(f"all pairs modulo {PRIME}".encode()).hexdigest(),
        note="The data are all pairs of numbers below the prime; the hash is of that sentence.",
    )
    panels = []
    for title, kinds in (
        ("Accuracy", ("training_accuracy", "validation_accuracy")),
        ("Loss, nats", ("training_loss", "validation_loss")),
        ("Weight norm", ("weight_norm",)),
    ):
        curves = [
            Curve(
                f"{kind.replace('_', ' ')}, {condition}",
                [max(1, s) for s in histories[f"{condition}, seed {seeds[0]}"]["step"]],
                [max(v, 1e-6) for v in histories[f"{condition}, seed {seeds[0]}"][kind]],
                2 * list(CONDITIONS).index(condition) + number
                if len(kinds) > 1
                else list(CONDITIONS).index(condition) * 2,
                dashed=kind.startswith("training"),
            )
            for condition in CONDITIONS
            for number, kind in enumerate(kinds)
        ]
        panels.append(Panel(title, "step", curves, log_y=title.startswith("Loss")))
    write_curves(HERE / "curves.svg", panels)


if __name__ == "__main__":
    main()
