"""Is more data worth it? The same recipe trained on nested parts of the data, and a curve.

Every size is measured on the same held-out rows at its own best epoch. So that choosing the epoch
does not flatter a run, each half of the held-out groups is measured at the epoch that the other
half chose. Intervals resample the held-out groups and the spread over seeds, each of which draws
other rows and starts the training anew.
"""

# T evaluations, D held-out documents, G groups, R resamples, n runs

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from heldout.core.discovery import build
from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Interval
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, same_settings
from heldout.core.regularizer import Evaluation
from heldout.core.results.learning_curve import CurvePoint, Forecast, LearningCurve
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.parts import Parts, Texts, write_parts
from heldout.jobs.kit.target import Target
from heldout.lm.load import load_tokenizer
from heldout.lm.quiet import quiet_libraries
from heldout.lm.tokenize import tokenize_row
from heldout.scaling.learning_curve import curve_loss, fit_curve, refit_curve

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = (0, 1, 2)
FACTORS = (2.0, 4.0)
NUM_RESAMPLES = 400
LEAST_GROUPS = 4  # in the smallest part
METHOD = "bootstrap over groups and seeds"


def learning_curve(
    model: str | Target,
    parts: Parts,
    recipe: Recipe,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = SEEDS,
    folder: str | Path | None = None,
    num_resamples: int = NUM_RESAMPLES,
    progress: Progress | None = None,
) -> LearningCurve:
    """Held-out loss of ``recipe`` over nested parts of ``parts.train``, and 2 and 4 times as much.

    model: what ``heldout fit --model`` takes, or a Target. parts: as ``read_parts`` gives them;
    the validation part measures all sizes, the test part is not touched. folder: keeps finished
    trainings, and a second call with the same arguments goes on from there.
    Costs ``len(seeds)`` times about twice a training on all rows. The learning rate is searched
    once, on all rows, unless the recipe names one. Raises UserError for what cannot work,
    Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    target = model if isinstance(model, Target) else Target.of(model, "")
    fractions, seeds = _checked(fractions, seeds, parts, recipe)
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "curve"
        stack.enter_context(quiet_libraries())
        stop = stack.enter_context(stop_on_interrupt())
        run = _open(Path(folder), target, parts, recipe)

        def asked() -> bool:
            return bool(stop)

        def check_interrupt(interrupted: bool) -> None:
            if interrupted or asked():
                raise Interrupted

        rate = find_learning_rate(
            run,
            target,
            recipe,
            Texts(parts.train, parts.validation, parts.train[:2]),
            stop=asked,
            progress=progress,
            check_interrupt=check_interrupt,
        )
        tokenizer = load_tokenizer(target.model, trust_remote_code=recipe.model.trust_remote_code)
        tokens = [
            tokenize_row(row, tokenizer, recipe.data.max_length).num_tokens for row in parts.train
        ]
        points, losses = [], []
        for seed in seeds:
            order = _order(parts.train, seed)
            for fraction in fractions:
                chosen = nested_part(parts.train, tokens, order, fraction)
                point, found = _train(
                    run, target, recipe, parts, chosen, tokens, fraction, seed, rate, asked,
                    progress, check_interrupt,
                )  # fmt: skip
                points.append(point)
                losses.append(found)
        base = run.losses("base", "validation")
        assert base is not None, "every training measures the base first"
    return fit_points(
        points,
        losses,
        base.nats_per_token,
        min_effect=recipe.eval.min_effect,
        num_resamples=num_resamples,
    )


def nested_part(
    rows: Sequence[Row], tokens: Sequence[int], order: Sequence[str], fraction: float
) -> list[int]:
    """Positions of the rows of the first groups in ``order`` that hold this share of the tokens.

    Whole groups, so that the parts of one order lie within one another; as near to the share as
    groups allow, and at least one group.
    """
    per_group: dict[str, int] = {}
    for row, num in zip(rows, tokens, strict=True):
        per_group[row.group] = per_group.get(row.group, 0) + num
    reached = np.cumsum([per_group[group] for group in order])
    last = int(np.argmin(np.abs(reached - fraction * reached[-1])))
    wanted = set(order[: last + 1])
    return [position for position, row in enumerate(rows) if row.group in wanted]


def cross_chosen(evaluations: Sequence[Evaluation], seed: int) -> DocumentLosses:
    """Each half of the groups at the evaluation of the other half's lowest loss."""
    nll_TD = np.stack([each.validation.nll_nats_D for each in evaluations])
    first = evaluations[0].validation
    names, group_D = np.unique(first.groups_D, return_inverse=True)
    half_G = np.zeros(len(names), bool)
    half_G[np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]] = True
    in_half_D = half_G[group_D]
    nll_D = np.empty(nll_TD.shape[1])
    for half_D in (in_half_D, ~in_half_D):
        nll_D[half_D] = nll_TD[np.argmin(nll_TD[:, ~half_D].sum(1))][half_D]
    return DocumentLosses(nll_D, first.num_tokens_D, first.num_bytes_D, first.groups_D)


def fit_points(
    points: Sequence[CurvePoint],
    losses: Sequence[DocumentLosses],
    base_nats_per_token: float,
    *,
    min_effect: float,
    num_resamples: int = NUM_RESAMPLES,
) -> LearningCurve:
    """The curve through finished trainings with its forecasts; the losses are of the same rows."""
    D = np.array([point.num_tokens for point in points], np.float64)
    fractions = np.array([point.fraction for point in points])
    observed = np.array([point.nats_per_token for point in points])
    found = fit_curve(D, observed)
    resampled = refit_curve(D, _resampled(points, losses, num_resamples))
    most = float(D[fractions == fractions.max()].mean())
    now, now_R = curve_loss(most, found.values), curve_loss(most, resampled)
    forecasts = []
    for factor in FACTORS:
        loss = curve_loss(factor * most, found.values)
        loss_R = curve_loss(factor * most, resampled)
        forecasts.append(
            Forecast(
                factor,
                factor * most,
                float(loss),
                _interval(loss, loss_R),
                float(now - loss),
                _interval(now - loss, now_R - loss_R),
            )
        )
    backtest = _backtest(D, fractions, observed)
    E, B, beta = map(float, found.values)
    answer, sentence = _answer(forecasts[0], min_effect)
    return LearningCurve(
        tuple(points),
        len(losses[0]),
        losses[0].num_groups,
        base_nats_per_token,
        E,
        B,
        beta,
        tuple(forecasts),
        backtest,
        min_effect,
        answer,
        sentence,
        tuple(_notes(points, backtest, resampled, found.values)),
    )


def _checked(fractions, seeds, parts: Parts, recipe: Recipe) -> tuple[list[float], list[int]]:
    fractions, seeds = sorted(set(map(float, fractions))), list(dict.fromkeys(seeds))
    if not all(0 < fraction <= 1 for fraction in fractions) or len(fractions) < 3:
        raise UserError(
            "A learning curve needs three or more fractions above 0 and at most 1, got "
            f"{', '.join(f'{fraction:g}' for fraction in fractions) or 'none'}."
        )
    if not seeds or len(fractions) * len(seeds) < 4:
        raise UserError(
            f"A learning curve needs 4 trainings or more, got {len(fractions)} fractions with "
            f"{len(seeds)} seeds: give more of either."
        )
    if parts.mode != "split":
        raise UserError(
            f"A learning curve needs a held-out part, and {parts.groups['train']} groups are too "
            "few for one. Name a file with data.validation, or set data.test_share=0 if no test "
            "part is wanted."
        )
    num_groups = len({row.group for row in parts.train})
    if fractions[0] * num_groups < LEAST_GROUPS:
        raise UserError(
            f"The smallest part of a learning curve, {fractions[0]:g} of {num_groups} training "
            f"groups, must have {LEAST_GROUPS} groups: leave that fraction out, or give more rows."
        )
    for name, parameters in recipe.regularizers.items():
        if build("regularizer", name, parameters).NEEDS_VALIDATION:
            raise UserError(
                f"regularizers.{name} goes back to kept checkpoints, which a learning curve does "
                f"not keep: take it out with --set regularizers.{name}=false."
            )
    if recipe.search.grids:
        raise UserError(
            "A learning curve trains one recipe on every part, and search.grids compares settings: "
            "leave it out with --set search.grids={}."
        )
    return fractions, seeds


def _open(folder: Path, target: Target, parts: Parts, recipe: Recipe) -> Run:
    """The folder as a run, new or from an earlier call with the same arguments."""
    made_with = {
        **asdict(target),
        "recipe": recipe.to_toml(),
        "rows": hashlib.sha256(
            json.dumps([row.to_json() for row in [*parts.train, *parts.validation]]).encode()
        ).hexdigest(),
    }
    if not (folder / "status.json").is_file():
        run = Run.create(folder, recipe)
        write_parts(run, parts, recipe)
        run.write_json("curve.json", {"made_with": made_with, "points": []})
        return run
    run = Run.open(folder)
    known = run.read_json("curve.json") if run.path("curve.json").exists() else {}
    if not same_settings(known.get("made_with", {}), made_with):
        raise UserError(
            f"{folder} holds something else than this learning curve (another model, recipe or "
            "data): give another folder."
        )
    return run


def _order(rows: Sequence[Row], seed: int) -> list[str]:
    """Groups in an order of the seed's own that does not depend on the order of the rows."""

    def key(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode()).digest()

    return sorted({row.group for row in rows}, key=key)


def _train(
    run: Run,
    target: Target,
    recipe: Recipe,
    parts: Parts,
    chosen: Sequence[int],
    tokens: Sequence[int],
    fraction: float,
    seed: int,
    rate: float,
    stop: Callable[[], bool],
    progress: Progress,
    check_interrupt: Callable[[bool], None],
) -> tuple[CurvePoint, DocumentLosses]:
    """One training of the curve, or what an earlier call found."""
    name = f"{fraction:.6g}_seed_{seed}"
    for entry in run.read_json("curve.json")["points"]:
        known = run.losses(name, "validation")
        if (entry["fraction"], entry["seed"]) == (fraction, seed) and known is not None:
            return CurvePoint(**entry), known
    # Fewer rows are gone through more often, and measured less often for each of their epochs.
    finer = math.sqrt(fraction)
    used = recipe.replace(
        train={
            "seed": (recipe.train.seed + seed) % 2**32,
            "max_epochs": recipe.train.max_epochs / finer,
            "report_to": (),
        },
        eval={"per_epoch": recipe.eval.per_epoch * finer},
    )
    rows = [parts.train[position] for position in chosen]
    condition = Condition(
        run,
        target,
        used,
        Texts(rows, parts.validation, rows[:2]),  # the loss on training rows is not looked at
        rate,
        used.train.max_epochs,
        history_name=f"{name}_history.jsonl",
        folder=f"checkpoints/{name}",
        keep_best=False,
    )
    trained = condition.train(
        stop=stop, progress=progress, name=f"{fraction:.3g} of the data, {seed=}"
    )
    check_interrupt(trained.outcome.interrupted)
    evaluations = trained.evaluations
    losses = cross_chosen(evaluations, recipe.data.seed)
    best = min(evaluations, key=lambda each: each.validation.nats_per_token)
    point = CurvePoint(
        fraction,
        seed,
        len(rows),
        sum(tokens[position] for position in chosen),
        losses.nats_per_token,
        best.epoch,
        evaluations[-1].epoch,
        len(evaluations),
    )
    run.save_losses("base", "validation", evaluations[0].validation)
    run.save_losses(name, "validation", losses)
    about = run.read_json("curve.json")
    run.write_json("curve.json", {**about, "points": [*about["points"], asdict(point)]})
    shutil.rmtree(run.path(condition.folder), ignore_errors=True)
    return point, losses


def _resampled(points, losses: Sequence[DocumentLosses], num_resamples: int) -> np.ndarray:
    """Losses (R, n) with other held-out groups and other luck of the seeds.

    Seeds are few: what they add is drawn from the deviations of all runs from the mean of their
    size, enlarged by what a mean of few takes out of them.
    """
    rng = np.random.default_rng(0)
    names, group_D = np.unique(losses[0].groups_D, return_inverse=True)
    num_groups = len(names)
    nll_nG = np.stack(
        [np.bincount(group_D, weights=each.nll_nats_D, minlength=num_groups) for each in losses]
    )
    tokens_G = np.bincount(group_D, weights=losses[0].num_tokens_D, minlength=num_groups)
    counts_RG = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
    drawn_Rn = np.log(counts_RG @ nll_nG.T) - np.log(counts_RG @ tokens_G)[:, None]
    _, size_n = np.unique([point.fraction for point in points], return_inverse=True)
    num_seeds = np.bincount(size_n)
    per_size = np.zeros((len(points), len(num_seeds)))
    per_size[np.arange(len(points)), size_n] = 1 / num_seeds[size_n]
    mean_Rn = (drawn_Rn @ per_size)[:, size_n]
    log_n = np.log([each.nats_per_token for each in losses])
    least = num_seeds.min()
    if least < 2:
        return np.exp(drawn_Rn)
    deviation_n = (log_n - (log_n @ per_size)[size_n]) * math.sqrt(least / (least - 1))
    return np.exp(mean_Rn + rng.choice(deviation_n, size=drawn_Rn.shape))


def _interval(value, draws, level: float = 0.95) -> Interval:
    """Percentiles, widened to hold the estimate."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(min(low, value)), float(max(high, value)), level, METHOD)


def _backtest(D, fractions, observed) -> float | None:
    """Percent by which the curve through the smaller sizes lies over the largest one's loss."""
    smaller = fractions < fractions.max()
    if smaller.sum() < 4 or np.unique(fractions[smaller]).size < 3:
        return None
    said = curve_loss(float(D[~smaller].mean()), fit_curve(D[smaller], observed[smaller]).values)
    return float(100 * (said / observed[~smaller].mean() - 1))


def _answer(double: Forecast, min_effect: float) -> tuple[Literal["yes", "no", "unclear"], str]:
    low, high = double.gain_interval.low, double.gain_interval.high
    level = f"{double.gain_interval.level:.0%}".replace("%", " %")
    gain = f"by {double.gain:.3f} nats per token ({level}: {low:.3f} to {high:.3f})"
    if low > min_effect:
        return "yes", f"Yes: twice the data would lower the held-out loss {gain}."
    if high < min_effect:
        return "no", (
            f"No: twice the data would lower the held-out loss {gain}, less than the "
            f"{min_effect:g} that matter."
        )
    return "unclear", (
        f"Unclear: twice the data would lower the held-out loss {gain}, and {min_effect:g} matter. "
        "More seeds or more sizes would tell."
    )


def _notes(points, backtest: float | None, resampled: np.ndarray, values: np.ndarray) -> list[str]:
    """What the curve does not know, one sentence each."""
    said = [
        "All sizes use one learning rate: a small part with its own might do a little better, "
        "which would make the curve flatter.",
        "Twice and four times the data lie outside all that was measured: they are forecasts, and "
        "hold for more data of the same kind.",
    ]
    unfinished = sorted(
        {point.fraction for point in points if point.best_epoch == point.last_epoch}
    )
    if unfinished:
        said.append(
            f"At {', '.join(f'{fraction:.3g}' for fraction in unfinished)} of the data the loss "
            "was lowest at the last evaluation: more epochs (train.max_epochs) would lower it."
        )
    if len({point.seed for point in points}) < 2:
        said.append("One seed: the intervals know nothing of its luck.")
    if all(point.best_epoch == 0 for point in points):
        said.append("No training improved on the model as it was: the curve is flat for that.")
    floor = np.quantile(resampled[:, 0], 0.025)
    if floor < 0.5 * values[0]:
        said.append(
            "The floor E is not identified by these runs: far beyond them the curve is a guess."
        )
    if backtest is not None:
        over = "over" if backtest > 0 else "under"
        said.append(
            f"Tested on itself: the curve through the smaller sizes lies {abs(backtest):.2g} % "
            f"{over} the loss at the largest one."
        )
    return said
