"""Next-character prediction with a fixed number of parameters and more and more training text.

    python experiments/double_descent/run.py [--seeds 0 1 2 3 4]

Random ReLU features of the preceding characters and a linear readout, by least squares: for it the
solution of smallest norm is exact, and so is every step of gradient descent, from one singular
value decomposition. Part one varies the number of training characters (Nakkiran et al. 2019, arXiv
1912.02292, sections on sample-wise double descent); part two follows training over time, once
plainly and once with features of two speeds (Heckel and Yilmaz 2020, arXiv 2007.10099).
The text is Python's own reference, which comes with every interpreter.
"""

# N training characters, M held-out characters, P features, V symbols, K preceding characters

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from curves import Curve, Panel, write_curves  # noqa: E402
from result import write_result  # noqa: E402

SYMBOLS = "abcdefghijklmnopqrstuvwxyz .,()'_\n"
CONTEXT = 4
NEAR, FAR = (0, 1, 2, 3), (1, 2, 3)  # places before the predicted one that features see
NUM_FEATURES = 400
NUM_HELD_OUT = 4000
RATIOS = (0.1, 0.15, 0.25, 0.4, 0.6, 0.75, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)
RIDGE = 0.1  # of the mean squared feature value; the control that is not free to interpolate
PEAK = 1.5  # times the error with less text
HISTORY_RATIOS = (0.25, 1.0, 12.0)
STEPS = np.unique(np.round(np.logspace(0, 7, 57)).astype(int))
SLOW_SCALE, SLOW_RATIO, SLOW_STEPS = 0.002, 0.1, np.unique(np.round(np.logspace(0, 8, 65)))


def read_text():
    """Lower case, other characters dropped; every run of blanks is one."""
    text = "\n".join(topics[name] for name in sorted(topics)).lower()
    text = "".join(character for character in text if character in SYMBOLS)
    return " ".join(text.split(" ")).replace("  ", " ")


def draw(text, num_train, rng):
    """Contexts (.., K) and next symbols of training and held-out places in separate halves."""
    ids = np.array([SYMBOLS.index(character) for character in text])
    middle = len(ids) // 2
    parts = []
    for low, high, num in ((0, middle, num_train), (middle, len(ids), NUM_HELD_OUT)):
        at = rng.choice(np.arange(low + CONTEXT, high), size=num, replace=False)
        parts.append((ids[at[:, None] - np.arange(1, CONTEXT + 1)], ids[at]))
    return parts


def random_features(contexts, columns, rng_seed, num=NUM_FEATURES):
    """ReLU of random sums over the one-hot characters at ``columns``, of unit mean square."""
    rng = np.random.default_rng(rng_seed)
    table = rng.standard_normal((len(columns), len(SYMBOLS), num))
    bias = rng.standard_normal(num)
    total = sum(table[i, contexts[:, column]] for i, column in enumerate(columns))
    features = np.maximum(total / len(columns) ** 0.5 + bias, 0)
    return features / num**0.5


def one_hot(ids):
    """Targets (.., V)."""
    return np.eye(len(SYMBOLS))[ids]


class Readout:
    """Least squares from features to symbols, solved through the singular values."""

    def __init__(self, features_NP, targets_NV):
        self.mean_V = targets_NV.mean(0)
        u, self.singular, self.right = np.linalg.svd(features_NP, full_matrices=False)
        self.projected = u.T @ (targets_NV - self.mean_V)

    def weights(self, gain):
        """``gain`` is 1 / s for the solution of smallest norm, else a filtered form of it."""
        return self.right.T @ (gain[:, None] * self.projected)

    def least_norm(self):
        keep = self.singular > 1e-9 * self.singular[0]
        return self.weights(np.where(keep, 1 / np.maximum(self.singular, 1e-300), 0))

    def ridge(self, strength):
        return self.weights(self.singular / (self.singular**2 + strength))

    def after(self, step):
        """Gradient descent from zero with rate 1 / s_max^2, after ``step`` steps."""
        shrink = np.exp(
            step * np.log1p(-np.minimum((self.singular / self.singular[0]) ** 2, 1 - 1e-16))
        )
        return self.weights(
            np.where(self.singular > 0, (1 - shrink) / np.maximum(self.singular, 1e-300), 0)
        )

    def score(self, weights, features, ids):
        """Squared error per symbol vector, and accuracy."""
        predicted = self.mean_V + features @ weights
        return ((predicted - one_hot(ids)) ** 2).sum(1).mean(), (predicted.argmax(1) == ids).mean()


def sweep(text, seed):
    """Errors at every training size, without and with the ridge."""
    rows = []
    for ratio in RATIOS:
        num_train = round(ratio * NUM_FEATURES)
        (contexts, ids), (held_contexts, held_ids) = draw(
            text, num_train, np.random.default_rng(seed)
        )
        train, held_out = (random_features(c, NEAR, seed + 100) for c in (contexts, held_contexts))
        readout = Readout(train, one_hot(ids))
        row = {"seed": seed, "num_train": num_train, "num_parameters": NUM_FEATURES}
        for condition, weights in (
            ("least_norm", readout.least_norm()),
            ("ridge", readout.ridge(RIDGE * num_train / NUM_FEATURES)),
        ):
            row[f"training_loss_{condition}"] = readout.score(weights, train, ids)[0]
            loss, accuracy = readout.score(weights, held_out, held_ids)
            row[f"heldout_loss_{condition}"], row[f"heldout_accuracy_{condition}"] = loss, accuracy
            row[f"weight_norm_{condition}"] = np.linalg.norm(weights)
        row["heldout_loss_constant"] = readout.score(0 * weights, held_out, held_ids)[0]
        rows.append({k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in row.items()})
    return rows


def history(readout, steps, train, ids, held_out, held_ids):
    """Columns over the steps of gradient descent."""
    columns = {
        name: []
        for name in (
            "step",
            "training_loss",
            "validation_loss",
            "validation_accuracy",
            "weight_norm",
        )
    }
    for step in steps:
        weights = readout.after(float(step))
        loss, accuracy = readout.score(weights, held_out, held_ids)
        values = (
            step,
            readout.score(weights, train, ids)[0],
            loss,
            accuracy,
            np.linalg.norm(weights),
        )
        for name, value in zip(columns, values, strict=True):
            columns[name].append(float(f"{value:.5g}"))
    return columns


def histories_of(text, seed):
    """Training over time: below, at and above the threshold, and with features of two speeds."""
    found = {}
    for ratio in HISTORY_RATIOS:
        (contexts, ids), (held_contexts, held_ids) = draw(
            text, round(ratio * NUM_FEATURES), np.random.default_rng(seed)
        )
        train, held_out = (random_features(c, NEAR, seed + 100) for c in (contexts, held_contexts))
        readout = Readout(train, one_hot(ids))
        found[f"{ratio:g} training characters per parameter, seed {seed}"] = history(
            readout, STEPS, train, ids, held_out, held_ids
        )
    num_train = round(NUM_FEATURES / SLOW_RATIO)
    (contexts, ids), (held_contexts, held_ids) = draw(text, num_train, np.random.default_rng(seed))

    def two_speeds(c):
        far = random_features(c, FAR, seed + 100)
        near = one_hot(c[:, 0]) * SLOW_SCALE
        return np.concatenate([far, near], axis=1)

    train, held_out = two_speeds(contexts), two_speeds(held_contexts)
    readout = Readout(train, one_hot(ids))
    found[f"features of two speeds, seed {seed}"] = history(
        readout, SLOW_STEPS, train, ids, held_out, held_ids
    )
    return found


def main():
    """Both parts, then result, histories and picture; about a minute on one core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    begin = time.process_time()
    text = read_text()
    table = [row for seed in arguments.seeds for row in sweep(text, seed)]
    histories = {}
    for seed in arguments.seeds[:3]:
        histories |= histories_of(text, seed)
    (HERE / "histories.json").write_text(json.dumps(histories) + "\n")
    record(text, table, histories, arguments.seeds, time.process_time() - begin)


def record(text, table, histories, seeds, core_seconds):
    """The claim is checked in every seed: dip before, peak near one, lower after."""
    held = []
    for seed in seeds:
        rows = [row for row in table if row["seed"] == seed]
        loss = {r: row["heldout_loss_least_norm"] for r, row in zip(RATIOS, rows, strict=True)}
        peak = max(loss, key=loss.get)
        ridge = [row["heldout_loss_ridge"] for row in rows]
        held.append(
            {
                "peak_at": peak,
                "peak_over_less_data": loss[peak] / min(v for r, v in loss.items() if r < peak),
                "most_data_over_peak": loss[RATIOS[-1]] / loss[peak],
                "ridge_highest_rise": max(b / a for i, a in enumerate(ridge) for b in ridge[i:]),
            }
        )
    second = []
    for seed in seeds[:3]:
        column = np.array(histories[f"features of two speeds, seed {seed}"]["validation_loss"])
        top = 1 + int(column[1:-1].argmax())
        second.append(
            {
                "first_descent": float(column[0] - column[: top + 1].min()),
                "rise": float(column[top] - column[: top + 1].min()),
                "second_descent": float(column[top] - column[top:].min()),
            }
        )
    in_data = sum(h["peak_over_less_data"] > PEAK and 0.75 <= h["peak_at"] <= 1.3 for h in held)
    in_time = sum(min(s["rise"], s["second_descent"]) > 0.01 for s in second)
    figures = {
        **{
            f"{name}_{side.__name__}": side(h[name] for h in held)
            for name in held[0]
            for side in (min, max)
        },
        "num_seeds_with_peak": in_data,
        "num_seeds": len(seeds),
        "num_histories_with_second_descent": in_time,
        "num_histories_of_two_speeds": len(second),
        **{f"{name}_two_speeds_min": min(s[name] for s in second) for name in second[0]},
        "core_seconds": core_seconds,
    }
    write_result(
        HERE,
        claim=f"With {NUM_FEATURES} parameters per symbol fixed, more training text makes the "
        "held-out error worse up to a peak near one training character per parameter, at least "
        f"{PEAK} times the error with less text; with still more text it falls below all before. "
        "With a ridge penalty it never rises by that factor.",
        claim_holds="yes"
        if in_data == len(seeds)
        and all(h["ridge_highest_rise"] < PEAK and h["most_data_over_peak"] < 1 for h in held)
        else "partly"
        if in_data
        else "no",
        summary=f"In {in_data} of {len(seeds)} seeds; at the peak the error is "
        f"{figures['peak_over_less_data_min']:.0f} to {figures['peak_over_less_data_max']:.0f} "
        "times the least with less text. The ridge never rises by more than "
        f"{100 * (figures['ridge_highest_rise_max'] - 1):.1f} %. Over training time with features "
        f"of two speeds a second descent shows in {in_time} of {len(second)} runs.",
        figures=figures,
        table=table,
        seeds=seeds,
        data_sha256=hashlib.sha256(text.encode()).hexdigest(),
        note="Squared error of the symbol vector, not nats; accuracies lie in the table.",
    )
    rows = [row for row in table if row["seed"] == seeds[0]]
    sizes = [row["num_train"] for row in rows]
    two = histories[f"features of two speeds, seed {seeds[0]}"]
    at = histories[f"1 training characters per parameter, seed {seeds[0]}"]
    write_curves(
        HERE / "curves.svg",
        [
            Panel(
                "Squared error against training characters",
                "training characters",
                [
                    Curve(
                        "held out, least norm",
                        sizes,
                        [r["heldout_loss_least_norm"] for r in rows],
                        1,
                    ),
                    Curve("held out, ridge", sizes, [r["heldout_loss_ridge"] for r in rows], 2),
                    Curve(
                        "training, least norm",
                        sizes,
                        [max(1e-2, r["training_loss_least_norm"]) for r in rows],
                        0,
                        dashed=True,
                    ),
                ],
                log_y=True,
            ),
            *(
                Panel(
                    title,
                    "step",
                    [
                        Curve("held out", columns["step"], columns["validation_loss"], 1),
                        Curve(
                            "training", columns["step"], columns["training_loss"], 0, dashed=True
                        ),
                    ],
                )
                for title, columns in (
                    ("Over training, one character per parameter", at),
                    ("Over training, features of two speeds", two),
                )
            ),
        ],
    )


if __name__ == "__main__":
    main()
