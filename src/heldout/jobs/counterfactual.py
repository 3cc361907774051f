"""Which rows a model knows only because it was trained on them: the recipe of a run, retrained on
halves of its rows.

Counterfactual memorization (Zhang et al. 2021, "Counterfactual Memorization in Neural Language
Models"): accuracy on a row of models trained with it, minus that of models trained without it. A
common row is known without being trained on, so it scores 0, however well it is recited; a rare one
that is recited scores high. Influence is the same difference, measured on held-out rows.

Models come in pairs of complementary halves with one seed, so that every row has as many models
with as without it, and each pair gives one independent difference. Held-out rows are dealt to the
halves as well, though nobody trains on them: that is what chance alone reaches.
"""

# D rows, V held-out rows, P pairs of models, S random sign patterns

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.counterfactual import Counterfactual, CounterfactualRow, Influence
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.stats import (
    difference_of_estimates,
    difference_of_ratios,
    ratio_estimate,
    share_estimate,
    student_t_quantile,
)
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.target import Target
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.lm.quiet import quiet_libraries
from heldout.training.steps import evaluation_weights

LEAST_MODELS = 8
LEAST_ROWS = 10
CHANCE = 0.01  # of the rows nobody trained on lie beyond the threshold
NUM_PATTERNS = 200  # random sign patterns that tell how far chance reaches
SHOWN_INFLUENCES = 20
FOLDER = "counterfactual"
_SHOWN = 400  # characters of a row


@dataclass(frozen=True)
class Read:
    """What models say of training rows and held-out rows; pairs hold the half with the row first.

    ``accuracy_P2D``: share of each row's tokens that are the likeliest ones. ``nats_P2D``: its loss
    per token. For held-out rows the halves are those they were dealt to.
    """

    rows: list[Row]
    num_tokens_D: np.ndarray
    accuracy_P2D: np.ndarray
    nats_P2D: np.ndarray
    base_nats_D: np.ndarray
    is_first_PD: np.ndarray  # bool: in the first half of the pair

    @property
    def memorized_PD(self) -> np.ndarray:
        """Accuracy with minus without the row, by pair."""
        return self.accuracy_P2D[:, 0] - self.accuracy_P2D[:, 1]

    @property
    def first_minus_second_PD(self) -> np.ndarray:
        """Accuracy of the first half's model minus the second's, whatever the row's half."""
        return np.where(self.is_first_PD, 1, -1) * self.memorized_PD

    @property
    def groups(self) -> list[str]:
        return [row.group for row in self.rows]


def counterfactual(
    target: str | Path,
    *,
    num_models: int = 16,
    epochs: float | None = None,
    progress: Progress | None = None,
) -> Counterfactual:
    """Retrain the run ``target`` on halves of its rows, and tell what took each row to be learned.

    num_models: even; each trains on a random half of the rows. Intervals shrink with its root.
    epochs: of each model; by default those of the run's best checkpoint.
    Rows are drawn one by one, so that what a row shares with its duplicates or its own document
    counts as learned, not as memorized. Held-out rows are those of the run's validation part.

    Costs ``num_models`` trainings on half of the rows and as many readings of all. Finished models
    are kept in the run's folder ``counterfactual``: a second call goes on, and one with more models
    adds to them. Writes ``counterfactual.json`` there.

    Raises UserError for what cannot be told, Interrupted on Ctrl-C.
    """
    start = time.monotonic()
    if num_models < LEAST_MODELS or num_models % 2:
        raise UserError(
            f"--models must be even and {LEAST_MODELS} or more, got {num_models}: each row is then "
            f"known to half of them, and under {LEAST_MODELS // 2} pairs no interval means much."
        )
    run = Run.open(Path(target))
    if not run.path("result.json").exists():
        raise UserError(f"{target} has not finished its training: `heldout fit --resume {target}`.")
    found, known = run.read_json("result.json"), run.read_json("environment.json")
    epochs = found["best_epoch"] if epochs is None else epochs
    if not epochs > 0:
        raise UserError(
            f"{target} kept its base model, which was trained on no row: give --epochs, of each "
            "model."
            if found["best_epoch"] == 0
            else f"--epochs must be above 0, got {epochs}."
        )
    train, heldout = list(run.read_rows("train")), list(run.read_rows("validation"))
    if len(train) < LEAST_ROWS:
        raise UserError(
            f"{target} was trained on {len(train)} rows: halves of fewer than {LEAST_ROWS} tell "
            "nothing."
        )
    made_with = {"epochs": epochs, "learning_rate": found["learning_rate"]}
    folder = run.path(FOLDER)
    folder.mkdir(exist_ok=True)
    if (folder / "made_with.json").exists():
        before = run.read_json(f"{FOLDER}/made_with.json")
        if before != made_with:
            raise UserError(
                f"--epochs: {folder} holds models of {before['epochs']:g} epochs, asked for "
                f"{epochs:g}: give the same, or remove that folder."
            )
    else:
        run.write_json(f"{FOLDER}/made_with.json", made_with)
    models = _Models(
        run,
        Target(known["model"], known["from_scratch"]),
        train,
        heldout,
        epochs,
        found["learning_rate"],
        progress or Progress(),
    )
    with quiet_libraries():
        read_train, read_heldout = models.read(num_models)
    result = replace(
        judge(read_train, read_heldout, seed=run.recipe.data.seed),
        target=str(target),
        num_models=num_models,
        epochs=epochs,
        learning_rate=found["learning_rate"],
        seconds=time.monotonic() - start,
    )
    run.write_json(f"{FOLDER}/counterfactual.json", result.to_json())
    return result


# Training


def halves(num_train: int, num_heldout: int, seed: int, pair: int) -> np.ndarray:
    """(2, D) bool: which rows are in either half of a pair; training rows first, held-out after."""
    rng = np.random.default_rng([seed, pair])
    first_D = np.concatenate([rng.permutation(num) < num / 2 for num in (num_train, num_heldout)])
    return np.stack([first_D, ~first_D])


@dataclass(frozen=True)
class _Models:
    """The models of a run, trained as far as they are not there, and what they say of all rows."""

    run: Run
    target: Target
    train: list[Row]
    heldout: list[Row]
    epochs: float
    learning_rate: float
    progress: Progress

    def read(self, num_models: int) -> tuple[Read, Read | None]:
        """What ``num_models`` say of training rows and of held-out rows, if there are any."""
        with (
            stop_on_interrupt() as stop,
            self.progress.stage("models", num_models + 1),
        ):
            base = self._kept("base", None, stop)
            self.progress.advance()
            pairs = []
            for pair in range(num_models // 2):
                halves_2D = halves(
                    len(self.train), len(self.heldout), self.run.recipe.data.seed, pair
                )
                models = []
                for half in (0, 1):
                    name = f"pair-{pair:03d}-{'ab'[half]}"
                    models.append(self._kept(name, (pair, halves_2D[half]), stop))
                    self.progress.advance()
                pairs.append((halves_2D[0], models))
        num = len(self.train)
        parts = [self._part(self.train, pairs, base, slice(0, num))]
        if len({row.group for row in self.heldout}) < 2:
            return parts[0], None
        return parts[0], self._part(self.heldout, pairs, base, slice(num, None))

    def _part(self, rows: list[Row], pairs: Sequence[Any], base: dict, part: slice) -> Read:
        is_first_PD = np.stack([first_D[part] for first_D, _ in pairs])
        sides = {}
        for name in ("correct", "nats"):
            both_P2D = np.stack([np.stack([model[name][part] for model in ms]) for _, ms in pairs])
            swapped_P2D = both_P2D[:, ::-1]
            with_first_P2D = np.where(is_first_PD[:, None], both_P2D, swapped_P2D)
            sides[name] = with_first_P2D / np.maximum(base["tokens"][part], 1)
        tokens_D = base["tokens"][part]
        return Read(
            rows,
            tokens_D,
            sides["correct"],
            sides["nats"],
            base["nats"][part] / np.maximum(tokens_D, 1),
            is_first_PD,
        )

    def _kept(self, name: str, half: Any, stop: Any) -> dict[str, np.ndarray]:
        """Sums over each row's tokens under one model, trained now unless it was before."""
        path = self.run.path(f"{FOLDER}/{name}.npz")
        if not path.exists():
            if stop:
                raise Interrupted(_stopped(self.run))
            correct_D, nats_D, tokens_D = self._measure(name, half, stop)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, correct=correct_D, nats=nats_D, tokens=tokens_D)
            partial.replace(path)
            shutil.rmtree(self.run.path(f"{FOLDER}/checkpoints-{name}"), ignore_errors=True)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def _measure(self, name: str, half: Any, stop: Any) -> tuple[np.ndarray, ...]:
        recipe = self.run.recipe
        if half is None:
            loaded = self.target.load(recipe)
            return self._sums(loaded.model, loaded.tokenizer, recipe)
        pair, chosen_D = half
        recipe = recipe.replace(
            train={"seed": (recipe.train.seed + 1 + pair) % 2**32, "report_to": ()}
        )
        condition = Condition(
            self.run,
            self.target,
            recipe,
            Texts([r for r, in_half in zip(self.train, chosen_D, strict=False) if in_half], [], []),
            self.learning_rate,
            self.epochs,
            folder=f"{FOLDER}/checkpoints-{name}",
            keep_best=False,
        )
        trained = condition.train_unwatched(
            stop=lambda: bool(stop), progress=self.progress, name=name.replace("-", " ")
        )
        if trained.outcome.interrupted:
            raise Interrupted(_stopped(self.run))
        with evaluation_weights(trained.model, trained.regularizers):
            return self._sums(trained.model, trained.tokenizer, recipe)

    def _sums(self, model: Any, tokenizer: Any, recipe: Recipe) -> tuple[np.ndarray, ...]:
        read = pass_statistics(
            model,
            [*self.train, *self.heldout],
            tokenizer,
            max_length=recipe.data.max_length,
            batch_size=recipe.eval.batch_size,
        )
        losses = read.losses
        return read.bin_correct_DC.sum(axis=1), losses.nll_nats_D, losses.num_tokens_D


def _stopped(run: Run) -> str:
    return f"Stopped. Finished models are kept: `heldout counterfactual {run.folder}` goes on."


# Judging


def judge(train: Read, heldout: Read | None, *, seed: int = 0) -> Counterfactual:
    """From what models say of the rows to which are memorized; pure arithmetic."""
    memorized_D = train.memorized_PD.mean(axis=0)
    reach_D = _reach(train.memorized_PD)
    threshold = None if heldout is None else chance_threshold(heldout.memorized_PD, seed)
    bar_D = reach_D if threshold is None else np.full(len(reach_D), threshold)
    is_clear_D = memorized_D > bar_D
    with_D, without_D = train.nats_P2D.mean(axis=0)
    rows = [
        CounterfactualRow(
            train.rows[place].index,
            train.rows[place].text[:_SHOWN],
            float(memorized_D[place]),
            Interval(
                float(memorized_D[place] - reach_D[place]),
                float(memorized_D[place] + reach_D[place]),
                method="Student t over pairs of models",
            ),
            bool(is_clear_D[place]),
            float(train.base_nats_D[place]),
            float(without_D[place]),
            float(with_D[place]),
        )
        for place in np.argsort(-memorized_D, kind="stable").tolist()
    ]
    return Counterfactual(
        "",
        2 * len(train.memorized_PD),
        0.0,
        0.0,
        len(set(train.groups)),
        rows,
        threshold,
        [] if heldout is None else influences(train, heldout, seed),
        _measurements(train, heldout, is_clear_D, threshold),
    )


def _reach(values_PD: np.ndarray) -> np.ndarray:
    """Half the width of a 95 % interval of the mean over pairs, (D,)."""
    num = len(values_PD)
    return student_t_quantile(0.975, num - 1) * values_PD.std(axis=0, ddof=1) / num**0.5


def chance_threshold(memorized_PV: np.ndarray, seed: int) -> float:
    """What a share CHANCE of rows that nobody trained on exceeds, dealt to halves at random."""
    num = len(memorized_PV)
    signs_SP = np.random.default_rng(seed).choice((-1.0, 1.0), (NUM_PATTERNS, num))
    return float(np.quantile(signs_SP @ memorized_PV / num, 1 - CHANCE))


def influences(train: Read, heldout: Read, seed: int) -> list[Influence]:
    """Training rows that change the accuracy on a held-out row by more than chance brings.

    Chance: the largest change of all pairs of rows where the models are assigned to the halves at
    random, in 95 of 100 such assignments. Few models can tell only strong influences apart.
    """
    signs_PD = np.where(train.is_first_PD, 1.0, -1.0)
    change_PV = heldout.first_minus_second_PD
    num = len(signs_PD)
    change_DV = signs_PD.T @ change_PV / num
    rng = np.random.default_rng(seed)
    largest = [
        float(np.abs(signs_PD.T @ (rng.choice((-1.0, 1.0), (num, 1)) * change_PV)).max()) / num
        for _ in range(NUM_PATTERNS)
    ]
    bar = float(np.quantile(largest, 0.95))
    places = np.argwhere(np.abs(change_DV) > bar)
    order = sorted(places.tolist(), key=lambda place: -abs(change_DV[tuple(place)]))
    return [
        Influence(
            train.rows[row].group,
            heldout.rows[other].index,
            float(change_DV[row, other]),
            train.rows[row].text[:_SHOWN],
            heldout.rows[other].text[:_SHOWN],
        )
        for row, other in order[:SHOWN_INFLUENCES]
    ]


def _measurements(
    train: Read, heldout: Read | None, is_clear_D: np.ndarray, threshold: float | None
) -> list[Measurement | NotMeasured]:
    """Over groups of rows; the control is what the same figures are for held-out rows."""
    num_groups = len(set(train.groups))
    if num_groups < 2:
        reason = "the training rows are one group, and an interval needs two"
        return [NotMeasured(name, reason) for name in ("counterfactual_memorization",)]

    def told(
        name: str, unit: str, values: Any, weights: Any, control: Any, note: str
    ) -> Measurement:
        own = ratio_estimate(values, weights, train.groups)
        contrasts = {}
        if control is not None and heldout is not None:
            difference, bounds = difference_of_ratios(
                (values, weights, train.groups), (*control, heldout.groups)
            )
            contrasts["heldout"] = Contrast(difference, bounds)
        return Measurement(
            name, own.value, unit, num_groups, "group", own.interval, contrasts, note
        )

    def rows_of(read: Read) -> tuple[np.ndarray, np.ndarray]:
        return read.memorized_PD.mean(axis=0), np.ones(len(read.rows))

    def nats_of(read: Read, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (before - after) * read.num_tokens_D, read.num_tokens_D

    def memorized_nats(read: Read) -> tuple[np.ndarray, np.ndarray]:
        with_D, without_D = read.nats_P2D.mean(axis=0)
        return nats_of(read, without_D, with_D)

    def learned_nats(read: Read) -> tuple[np.ndarray, np.ndarray]:
        return nats_of(read, read.base_nats_D, read.nats_P2D.mean(axis=0)[1])

    conditional = "conditional on these models; each row's own interval is over pairs of them"
    found: list[Measurement | NotMeasured] = [
        told(
            "counterfactual_memorization",
            "share of tokens",
            *rows_of(train),
            rows_of(heldout) if heldout else None,
            f"accuracy with minus without the row; {conditional}",
        ),
        told(
            "memorized_nats",
            "nats per token",
            *memorized_nats(train),
            memorized_nats(heldout) if heldout else None,
            f"fall of the loss that took the row itself; {conditional}",
        ),
        told(
            "learned_nats",
            "nats per token",
            *learned_nats(train),
            None,
            f"fall of the loss since the base that other rows brought; {conditional}",
        ),
    ]
    share, bounds = share_estimate(is_clear_D, train.groups)
    contrasts = {}
    if heldout is not None:
        control = share_estimate(rows_of(heldout)[0] > threshold, heldout.groups)
        contrasts["heldout"] = difference_of_estimates((share, bounds), control)
    found.append(
        Measurement(
            "memorized_rows",
            share,
            "share of rows",
            num_groups,
            "group",
            bounds,
            contrasts,
            f"beyond what {CHANCE:.0%} of rows that nobody trained on reach; {conditional}",
        )
    )
    return found
