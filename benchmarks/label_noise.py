"""Planted label noise: are swapped answers told, and what is told where none are swapped?

300 questions about 100 countries with their answers from the World Factbook. In one copy a tenth of
the answers, chosen at random, is passed on from row to row, so that each belongs to another
question; the other copy stays as it is. Three folds by country, the embedded model fine-tuned whole
for three epochs without each, as ``heldout check --cross-validate 3`` does.

An area under the curve is the chance that a swapped answer ranks above one that is not: by what the
check ranks by, and by the loss alone, before training and out of fold.

    python benchmarks/label_noise.py [--write]
"""

import argparse
import json
import random
import time
from hashlib import sha256

import numpy as np
import torch
from record import write_record

from heldout.core.progress import Progress
from heldout.core.recipe import load_recipe
from heldout.core.row import Row
from heldout.data.factbook import question_answer_rows
from heldout.jobs.checking.label_noise import (
    PromptLosses,
    brief_recipe,
    cross_validated_losses,
    find_doubtful,
    find_far_off,
)

MODEL = "package:heldout"
COUNTRIES, PER_COUNTRY, SWAPPED, FOLDS = 100, 3, 0.1, 3
RATE = 1e-3


def questions(share: float, seed: int) -> tuple[list[Row], list[int]]:
    """Rows, and the positions of those whose answers are swapped."""
    found = question_answer_rows(
        num_train_countries=COUNTRIES,
        num_validation_countries=1,
        num_test_countries=1,
        rows_per_country=PER_COUNTRY,
    )["train"]
    chosen = random.Random(seed).sample(range(len(found)), round(share * len(found)))
    answers = [found[place]["completion"] for place in chosen]
    for place, answer in zip(chosen, answers[1:] + answers[:1], strict=True):
        found[place]["completion"] = answer
    rows = []
    for index, row in enumerate(found):
        messages = (
            {"role": "prompt", "content": row["prompt"]},
            {"role": "completion", "content": row["completion"]},
        )
        rows.append(Row(index, messages, row["group"]))
    return rows, chosen


def area(scores: np.ndarray, chosen: list[int]) -> float:
    """Chance that one of the chosen scores higher than one of the others."""
    rank = np.empty(len(scores))
    rank[np.argsort(scores)] = np.arange(len(scores))
    num = len(chosen)
    return float((rank[chosen].sum() - num * (num - 1) / 2) / (num * (len(scores) - num)))


def losses(share: float, seed: int) -> tuple[PromptLosses, list[int], float]:
    rows, chosen = questions(share, seed)
    recipe = load_recipe("default", ["model.method=full", "data.max_length=256"])
    start = time.perf_counter()
    found = cross_validated_losses(MODEL, rows, brief_recipe(recipe), RATE, FOLDS, Progress())
    return found, chosen, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name, share in (("swapped", SWAPPED), ("clean", 0.0)):
        found, chosen, seconds = losses(share, options.seed)
        where = {row.index: str(row.index) for row in found.rows}
        doubtful, excess, planted, measured = find_doubtful(found, where)
        told = [each.row for each in doubtful]
        figures |= {
            f"rows_{name}": len(found.rows),
            f"told_{name}": len(told),
            f"told_share_{name}": len(told) / len(found.rows),
            f"above_zero_{name}": float(np.mean(np.array(excess) > 0)),
            f"caught_on_purpose_{name}": float(np.mean(np.array(planted) > 0)),
            f"far_off_{name}": len(find_far_off(found)),
            f"seconds_{name}": seconds,
        }
        print(measured, flush=True)
        if chosen:
            right = len(set(told) & set(chosen))
            above = np.flatnonzero(np.array(excess) > 0)
            tokens_D = found.num_tokens_D
            figures |= {
                "num_swapped": len(chosen),
                "precision": right / max(1, len(told)),
                "recall": right / len(chosen),
                "recall_above_zero": len(set(above.tolist()) & set(chosen)) / len(chosen),
                "area_by_prompts": area(np.array(excess), chosen),
                "area_by_loss": area(found.out_of_fold_DF[:, 0] / tokens_D, chosen),
                "area_by_base_loss": area(found.base_DF[:, 0] / tokens_D, chosen),
            }
            rows = json.dumps([row.to_json() for row in found.rows], sort_keys=True)
        print(json.dumps(figures, indent=2), flush=True)
    if options.write:
        write_record(
            "label_noise",
            figures,
            seeds=[options.seed],
            data_sha256=sha256(rows.encode()).hexdigest(),
            note=f"{SWAPPED:.0%} of the answers swapped between rows at random; {FOLDS} folds by "
            "country; the embedded model, all parameters, three epochs each",
        )


if __name__ == "__main__":
    main()
