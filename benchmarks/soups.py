"""Is one model whose weights are the mean of several seeds' worth their training?

    python benchmarks/soups.py [--cell NAME ...] [--members 4] [--work FOLDER] [--record]

The embedded model, trained by the recipe ``full`` on 50 documents of each data set of
``generalization``, with ``--members`` seeds of training (``heldout ensemble``; the first one finds
the rate). Their kept weights are averaged, all of them (``uniform``) and one after the other, in
the order of their validation losses, as long as the validation loss falls (``greedy``; Wortsman et
al. 2022, arXiv 2203.05482). Both are one model of one member's size. Beside them stands the
ensemble, which runs all members and averages their probabilities.

A gain is the members' mean loss on the sealed test less that of the soup, in nats per token, its
interval (95 %, paired) over groups of test documents, conditional on rows and seeds:
``uniform_CELL``, ``greedy_CELL``, ``ensemble_CELL``, each with ``_low`` and ``_high``.

Criterion, written down before the first recorded run: soups of seeds become part of ``heldout fit``
if ``soup_share_worth`` >= .67, the share of cells in which the interval of the better of the two
soups lies above .01, what ``eval.min_effect`` calls a difference that matters. They cost as many
trainings as there are seeds. A first look at other rows, not recorded, saw gains of .004 to .016.

Members that are done are not trained again. One thread, some 15 minutes.
"""

import argparse
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from generalization.texts import DATA, parts_folder, read_parts, sha256_of
from record import write_record
from safetensors.torch import load_file

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Interval
from heldout.core.recipe import load_recipe
from heldout.core.run import Run
from heldout.core.stats import RatioEstimate, ratio_estimate
from heldout.jobs.ensembles.ensemble import ensemble
from heldout.jobs.kit.clean_losses import losses_of
from heldout.lm.load import load_model
from heldout.lm.quiet import quiet_libraries

EMBEDDED = "package:heldout"
NUM_ROWS, ROWS_SEED = 50, 1
MATTERS = 0.01
SETTINGS = (
    "data.group=group",
    "train.threads=1",
    "train.side_by_side=1",
    "eval.num_samples=0",
    "eval.max_recital_rows=8",
)
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """A set of weights, and what it reads."""

    weights: Weights
    validation: float  # nats per token
    test: DocumentLosses


def main() -> None:
    options = parsed()
    work = Path(options.work).expanduser().resolve()
    figures: dict[str, float] = {}
    table: list[dict[str, Any]] = []
    cells = options.cell or list(DATA)
    for cell in cells:
        found, row = measured_cell(work, cell, options.members)
        figures |= found
        table.append(row)
        print(json.dumps(found, indent=1), flush=True)
    worth = [
        max(figures[f"{soup}_{cell}_low"] for soup in ("uniform", "greedy")) > MATTERS
        for cell in cells
    ]
    figures["soup_share_worth"] = sum(worth) / len(worth)
    print(f"soup_share_worth {figures['soup_share_worth']:.2f}")
    if options.record:
        data = " ".join(str(row["data"]) for row in table)
        path = write_record(
            "soups",
            figures,
            table=table,
            seeds=list(range(options.members)),
            data_sha256=hashlib.sha256(data.encode()).hexdigest(),
        )
        print(path)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cell", action="append", choices=list(DATA), help="repeatable")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--work", default="~/.cache/soups", help="outside of the tree")
    parser.add_argument("--record", action="store_true", help="write the record")
    options = parser.parse_args()
    if options.record and options.cell:
        parser.error("--record is of all cells: leave --cell out")
    return options


def measured_cell(work: Path, cell: str, members: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of a cell, and its row of the table."""
    torch.set_num_threads(1)
    data = parts_folder(work, cell, NUM_ROWS, ROWS_SEED)
    files = [f"data.{part}={data / f'{part}.jsonl'}" for part in ("validation", "test")]
    result = ensemble(
        EMBEDDED,
        str(data / "train.jsonl"),
        members=members,
        out=work / f"{cell}-{members}",
        recipe="full",
        settings=(*SETTINGS, *files),
    )
    runs = [Run.open(work / f"{cell}-{members}" / each.run) for each in result.members]
    with quiet_libraries():
        measure = Measuring(data)
        singles = [measure(load_file(next(run.best.glob("*.safetensors")))) for run in runs]
        soups = {"uniform": measure(mean_of(singles)), "greedy": greedy(singles, measure)}
    figures: dict[str, float] = {}
    for name, soup in soups.items():
        found = gain_over(singles, soup.test)
        figures |= told(f"{name}_{cell}", found.value, found.interval)
    (whole,) = [size for size in result.sizes if size.size == members]
    figures |= told(f"ensemble_{cell}", whole.gain, whole.gain_interval)
    row = {
        "cell": cell,
        "data": sha256_of(data),
        "members_test": [each.test.nats_per_token for each in singles],
        "members_validation": [each.validation for each in singles],
        "learning_rate": runs[0].read_json("result.json")["learning_rate"],
        **{f"{name}_test": soup.test.nats_per_token for name, soup in soups.items()},
        **{f"{name}_validation": soup.validation for name, soup in soups.items()},
        "ensemble_test": whole.nats_per_token,
    }
    return figures, row


class Measuring:
    """Losses of weights in the embedded model, on the rows of a folder."""

    def __init__(self, data: Path):
        self.parts = read_parts(data)
        self.recipe = load_recipe("full")
        self.loaded = load_model(EMBEDDED, device="cpu")

    def __call__(self, weights: Weights) -> Measured:
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert not unexpected, unexpected
        assert all("lm_head" in name for name in missing), missing  # tied to the embedding
        validation, test = (
            losses_of(model, tokenizer, self.parts[part], self.recipe)
            for part in ("validation", "test")
        )
        return Measured(weights, validation.nats_per_token, test)


def mean_of(measured: list[Measured]) -> Weights:
    first = measured[0].weights
    return {
        name: torch.stack([each.weights[name].float() for each in measured]).mean(0)
        for name in first
    }


def greedy(singles: list[Measured], measure: Measuring) -> Measured:
    """The best member, and others in their order as long as validation falls."""
    ordered = sorted(singles, key=lambda each: each.validation)
    taken, best = [ordered[0]], ordered[0]
    for each in ordered[1:]:
        found = measure(mean_of([*taken, each]))
        if found.validation < best.validation:
            taken, best = [*taken, each], found
    return best


def gain_over(singles: list[Measured], soup: DocumentLosses) -> RatioEstimate:
    """The members' mean loss of each document less the soup's."""
    nll_D = sum(each.test.nll_nats_D for each in singles) / len(singles)
    return ratio_estimate(nll_D - soup.nll_nats_D, soup.num_tokens_D, soup.groups_D, signed=True)


def told(name: str, value: float, interval: Interval) -> dict[str, float]:
    assert math.isfinite(interval.low), f"{name}: too few groups"
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


if __name__ == "__main__":
    main()
