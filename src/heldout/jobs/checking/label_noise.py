"""Rows judged by models that have not seen them: fine-tuned on the other folds, in which their
groups and duplicates are not.

A high loss does not tell a wrong answer from a rare one. What does is whether the answer is
likelier after its own prompt than after the prompts of other rows: the pointwise usable
information of a prompt (Ethayarajh, Choi and Swayamdipta 2022, "Understanding Dataset Difficulty
with V-Usable Information"), with others' prompts where they have none. That of a swapped answer is
about 0. Rows whose loss is far off both before and after training are told beside.
"""

# D rows, M other prompts, F 1 + M: the own prompt first

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.lock import scratch_folder
from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.label_noise import DoubtfulAnswer, LabelNoise
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.shares import share_estimate
from heldout.core.stats import (
    LEAST_HELD_OUT,
    paired_difference,
    ratio_estimate,
)
from heldout.data.other_prompts import foreign_prompts
from heldout.data.split import folds
from heldout.data.surprise import robust_z
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.target import Target
from heldout.lm.quiet import quiet_libraries
from heldout.search.learning_rate import start_learning_rate

EPOCHS = 3.0  # of each model; fewer where the recipe trains for fewer
NUM_OTHERS = 4  # prompts of other rows that each answer is read after
NOMINAL_SHARE = 0.05  # of the rows: more are not listed, whatever the data
FAR_OFF = 3.5  # robust standard deviations, both before and after training
_SAME_LENGTH = 100  # rows at least that are compared as being about as long
_SHOWN = 4000  # characters of a prompt or an answer


@dataclass(frozen=True)
class PromptLosses:
    """Losses in nats after each prompt; the rows of ``foreign`` come in the same order."""

    rows: list[Row]
    has_foreign_D: np.ndarray  # False: no prompt, or none of another row that differs
    base_DF: np.ndarray
    out_of_fold_DF: np.ndarray  # the own prompt alone counts where there are no others
    num_tokens_D: np.ndarray
    groups_D: np.ndarray


def label_noise(
    model: str,
    rows: Sequence[Row],
    recipe: Recipe,
    *,
    num_folds: int,
    num_parameters: int,
    where: dict[int, str],
    progress: Progress | None = None,
) -> tuple[LabelNoise, dict[int, str]]:
    """Answers in doubt, and reasons by Row.index for rows whose loss is far off.

    Row.group holds what must not straddle folds. ``recipe`` gives the method, the optimizer and,
    if it names one, the learning rate; its regularizers and augmentations are left out. ``where``
    names rows by Row.index. Costs ``num_folds`` trainings of 3 epochs and 10 passes over the rows.

    Raises UserError where the rows cannot be divided or a training diverges, Interrupted on Ctrl-C.
    """
    num_groups = len({row.group for row in rows})
    if num_groups < max(LEAST_HELD_OUT, 2 * num_folds):
        raise UserError(
            f"cross-validation of labels needs {max(LEAST_HELD_OUT, 2 * num_folds)} independent "
            f"groups, and {num_groups} were read"
        )
    brief = brief_recipe(recipe)
    rate = recipe.train.learning_rate
    if rate is None:
        rate = start_learning_rate(recipe.model.method, num_parameters)
    losses = cross_validated_losses(model, rows, brief, rate, num_folds, progress or Progress())
    doubtful, excess, swapped, measurements = find_doubtful(losses, where)
    noise = LabelNoise(
        len(rows),
        int(losses.has_foreign_D.sum()),
        num_folds,
        brief.train.max_epochs,
        rate,
        doubtful,
        excess,
        swapped,
        measurements,
    )
    return noise, find_far_off(losses)


def brief_recipe(recipe: Recipe) -> Recipe:
    """A short plain training, measured before its first step and after its last."""
    short = recipe.replace(
        train={"max_epochs": min(EPOCHS, recipe.train.max_epochs), "report_to": ()},
        eval={"per_epoch": 1e-3},
    )
    return replace(short, regularizers={}, augment={})


def cross_validated_losses(
    model: str,
    rows: Sequence[Row],
    recipe: Recipe,
    rate: float,
    num_folds: int,
    progress: Progress,
) -> PromptLosses:
    """Losses of all rows, before any training and under the model trained without them.

    ``rate`` is the learning rate; ``recipe`` is followed as it is.
    """
    target = Target.of(model, "")
    place = {row.index: position for position, row in enumerate(rows)}
    foreign = foreign_prompts(rows, NUM_OTHERS, recipe.data.seed)
    base_DF, out_of_fold_DF = np.zeros((2, len(rows), 1 + NUM_OTHERS))
    num_tokens_D = np.zeros(len(rows), dtype=np.int64)
    with (
        scratch_folder("heldout-labels-") as folder,
        quiet_libraries(),
        stop_on_interrupt() as stop,
    ):
        run = Run.create(folder / "run", recipe)
        parts = folds(list(rows), num_folds, recipe.data.seed)
        for number, fold in enumerate(parts):
            read = [
                (place[row.index], column, each)
                for row in fold.held_out
                for column, each in enumerate([row, *foreign[place[row.index]]])
            ]
            texts = Texts(fold.train, [each for *_, each in read], fold.train[:2])
            context = RunContext(run, target, recipe, texts, progress, stop)
            condition = Condition(
                context,
                rate,
                recipe.train.max_epochs,
                history_name=f"fold_{number}_history.jsonl",
                folder=f"checkpoints/fold_{number}",
                keep_best=False,
            )
            name = f"labels, fold {number + 1} of {len(parts)}"
            trained = condition.train(name)
            if trained.outcome.interrupted:
                raise Interrupted
            before = trained.evaluations[0].validation
            # The average, where there is one: a choice by these rows would favor them.
            *_, after = trained.evaluations[-1].by_weights.values()
            at, columns = np.array([each[:2] for each in read]).T
            base_DF[at, columns] = before.nll_nats_D
            out_of_fold_DF[at, columns] = after.nll_nats_D
            num_tokens_D[at[columns == 0]] = before.num_tokens_D[columns == 0]
            shutil.rmtree(run.path(condition.folder), ignore_errors=True)
    return PromptLosses(
        list(rows),
        np.array([bool(each) for each in foreign]),
        base_DF,
        out_of_fold_DF,
        num_tokens_D,
        np.array([row.group for row in rows]),
    )


def find_doubtful(
    losses: PromptLosses, where: dict[int, str]
) -> tuple[list[DoubtfulAnswer], list[float], list[float], list[Measurement | NotMeasured]]:
    """Answers in doubt, the excess of all, that of swapped ones, and what was measured.

    The control lies in the data: the first of the other prompts, taken for the own one, shows how
    a swapped answer looks. Where the rows as they stand look no better, no answer can be judged.
    """
    kept = np.flatnonzero(losses.has_foreign_D)
    groups = losses.groups_D[kept]
    names = ("prompt_information", "doubtful_answers")
    if len(np.unique(groups)) < LEAST_HELD_OUT:
        reason = (
            f"{len(kept)} of {len(losses.rows)} rows have a prompt, one answer, and other rows "
            f"with other prompts, in fewer than {LEAST_HELD_OUT} groups"
        )
        return [], [], [], [NotMeasured(name, reason) for name in names]
    bits_D = losses.num_tokens_D[kept] * np.log(2)
    base_D = _excess(losses.base_DF[kept]) / bits_D
    excess_D = _excess(losses.out_of_fold_DF[kept]) / bits_D
    swapped_D = _excess(losses.out_of_fold_DF[kept, 1:]) / bits_D
    tokens_D = losses.num_tokens_D[kept]
    told = ratio_estimate(-excess_D * tokens_D, tokens_D, groups, signed=True)
    gained = paired_difference(-excess_D * tokens_D, -base_D * tokens_D, tokens_D, groups)
    looks_D, swapped_looks_D = excess_D > 0, swapped_D > 0
    ones = np.ones(len(kept))
    share, bounds = share_estimate(looks_D, groups)
    fewer = paired_difference(looks_D, swapped_looks_D, ones, groups)
    caught = float(swapped_looks_D.mean())
    measurements: list[Measurement | NotMeasured] = [
        Measurement(
            "prompt_information",
            told.value,
            "bits per token",
            told.num_groups,
            "group",
            told.interval,
            {"base": gained.as_contrast()},
            "by which the own prompt makes an answer likelier than prompts of other rows do, out "
            "of fold",
        )
    ]
    lists = [np.round(each, 4).tolist() for each in (excess_D, swapped_D)]
    if fewer.interval.high >= 0:
        reason = (
            f"the prompts tell too little: {share:.0%} of the answers are no likelier after "
            f"their own prompt, and {caught:.0%} of answers swapped on purpose"
        )
        return [], *lists, [*measurements, NotMeasured("doubtful_answers", reason)]
    most = min(1.0, bounds.high / caught) if caught else 1.0
    measurements.append(
        Measurement(
            "doubtful_answers",
            share,
            "share of answers",
            told.num_groups,
            "group",
            bounds,
            {"answers swapped on purpose": Contrast(fewer.value, fewer.interval, fewer.p_value)},
            f"no likelier after their own prompt; of answers swapped on purpose {caught:.0%} are, "
            f"so at most about {most:.0%} of the answers are swapped",
        )
    )
    order = np.argsort(-excess_D, kind="stable")
    worst = order[: int(NOMINAL_SHARE * len(kept))]
    doubtful = [
        _doubtful(losses.rows[kept[place]], where, float(excess_D[place]), float(base_D[place]))
        for place in worst.tolist()
        if looks_D[place]
    ]
    return doubtful, *lists, measurements


def _excess(nll_DF: np.ndarray) -> np.ndarray:
    """Loss after the first prompt minus the mean after the others."""
    return nll_DF[:, 0] - nll_DF[:, 1:].mean(axis=1)


def _doubtful(row: Row, where: dict[int, str], excess: float, base: float) -> DoubtfulAnswer:
    prompt = "\n".join(message["content"] for message in row.messages[:-1])
    answer = row.messages[-1]["content"]
    return DoubtfulAnswer(
        row.index,
        where[row.index],
        prompt[:_SHOWN],
        answer[:_SHOWN],
        round(excess, 4),
        round(base, 4),
    )


def find_far_off(losses: PromptLosses) -> dict[int, str]:
    """Rows whose loss given their length is far above the others', before and after training."""
    tokens_D = np.maximum(losses.num_tokens_D, 1)
    before_D = losses.base_DF[:, 0] / tokens_D
    after_D = losses.out_of_fold_DF[:, 0] / tokens_D
    found = {}
    order = np.argsort(tokens_D, kind="stable")
    for places in np.array_split(order, min(10, max(1, len(order) // _SAME_LENGTH))):
        both = np.minimum(
            *(robust_z(np.log(np.maximum(each[places], 1e-6))) for each in (before_D, after_D))
        )
        for place in places[both > FAR_OFF].tolist():
            found[losses.rows[place].index] = (
                f"{before_D[place] / np.log(2):.1f} bits per token under the base model and "
                f"{after_D[place] / np.log(2):.1f} in cross-validation, far more than rows of its "
                f"length ({np.median(after_D[places]) / np.log(2):.1f})"
            )
    return found
