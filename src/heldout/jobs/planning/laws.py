"""Fit and compare scaling laws: a table of finished runs to a law that forecasts, and its limits.

``laws("runs.csv")`` reads the runs, chooses a law by rolled-out forecasts (or takes the one named),
fits it to a certified optimum, and says what the runs cannot tell. With ``out`` it writes
``laws.json`` and a page with the figures.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.discovery import entries_of, plugin_class
from heldout.core.errors import UserError, did_you_mean
from heldout.core.files import write_text
from heldout.core.progress import Progress
from heldout.report import laws as page
from heldout.scaling.fit import Fit, fit
from heldout.scaling.huber import DELTA
from heldout.scaling.intervals import (
    NUM_RESAMPLES,
    Range,
    bootstrap,
    percentile_ranges,
    profile,
    warnings,
)
from heldout.scaling.law import Law
from heldout.scaling.rollout import AXES, Choice, Rollout, choose, correction_notes, rollouts
from heldout.scaling.runs import Runs, points
from heldout.scaling.saturating import GPT2_UNIFORM_LOSS
from heldout.scaling.table import NATS, RunTable, read_runs

SCHEMA = "heldout.laws/1"


@dataclass(frozen=True)
class LawsResult:
    """The fitted law with its intervals and warnings, the other laws, and how it was chosen."""

    table: RunTable
    fit: Fit
    intervals: dict[str, Range]
    warnings: list[str]
    others: list[Fit]
    rollouts: list[Rollout]
    choice: Choice | None
    report: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.laws/1``."""
        law, sure = self.fit.law, self.fit.certificate
        return {
            "schema": SCHEMA,
            "law": law.name,
            "formula": law.FORMULA,
            "parameters": self.fit.parameters,
            "objective": self.fit.objective,
            "objective_is": f"sum of Huber({self.fit.delta:g}) of log predicted - log observed",
            "delta": self.fit.delta,
            "rms_log_loss": self.fit.rms,
            "num_runs": len(self.fit.runs),
            "intervals": {name: asdict(each) for name, each in self.intervals.items()},
            "warnings": self.warnings,
            "certificate": {**asdict(sure), "certain": sure.is_certain},
            "units": {
                "N": f"parameters, {self.table.counted or 'embeddings not said'}",
                "D": "tokens seen",
                "U": "unique tokens",
                "loss": self.table.loss_unit,
                **{each.name: _unit(each.unit, self.table) for each in law.PARAMETERS},
            },
            "columns": self.table.columns,
            "choice": asdict(self.choice) if self.choice else None,
            "rollouts": [asdict(each) for each in self.rollouts],
            "laws": [
                {
                    "law": each.law.name,
                    "objective": each.objective,
                    "rms_log_loss": each.rms,
                    "parameters": each.parameters,
                }
                for each in [self.fit, *self.others]
            ],
            "report": str(self.report) if self.report else None,
        }


def all_laws(uniform_loss: float | None = None) -> list[Law]:
    """Every law, those of plug-ins too; ``uniform_loss`` goes to the laws that saturate."""
    made = []
    for entry in entries_of("law"):
        kind = plugin_class(entry)
        given = {"uniform_loss": uniform_loss} if saturates(kind) and uniform_loss else {}
        made.append(kind(**given))
    return made


def saturates(law: type) -> bool:
    """Whether a law has to know the loss of a uniform guess."""
    return "uniform_loss" in {each.name for each in fields(law)}


@dataclass(frozen=True)
class FittedLaw:
    """A table of runs with the law that was named or chosen for it; ``said`` is how."""

    table: RunTable
    fit: Fit
    possible: list[Law]
    rollouts: list[Rollout]
    choice: Choice | None
    said: tuple[str, ...]


def fitted_law(
    path: str | Path,
    *,
    law: str = "",
    columns: Sequence[str] = (),
    where: Sequence[str] = (),
    parameters: str = "",
    loss_unit: str = "",
    uniform_loss: float | None = None,
    axes: Sequence[str] = tuple(AXES),
    delta: float = DELTA,
    compare: bool = False,
    progress: Progress | None = None,
) -> FittedLaw:
    """Read the runs, choose a law by its forecasts unless one is named, and fit it.

    ``compare`` makes the forecasts even where a law is named.
    """
    progress = progress or Progress()
    if uniform_loss is not None and not uniform_loss > 0:
        raise UserError(f"--uniform-loss must be positive, got {uniform_loss}.")
    if not delta > 0:
        raise UserError(f"--delta must be positive, a size of log residuals, got {delta}.")
    for axis in axes:
        if axis not in AXES:
            raise UserError(f"Unknown axis {axis!r}{did_you_mean(axis, list(AXES))}")
    known = {each.name: each for each in all_laws(uniform_loss)}
    law = law.replace("-", "_")
    if law and law not in known:
        raise UserError(f"Unknown law {law!r}{did_you_mean(law, list(known))}")
    table = read_runs(path, columns=columns, where=where, counted=parameters, loss_unit=loss_unit)
    runs = table.runs
    possible = [each for each in known.values() if _can_be_fitted(each, runs)]
    made: list[Rollout] = []
    choice: Choice | None = None
    said: list[str] = []
    if possible and (compare or not law):
        with progress.stage("rolled-out forecasts"):
            made = rollouts(possible, runs, delta=delta, axes=axes, advance=progress.advance)
        if made:
            choice = choose(possible, runs, made, axes)
            said += [] if law else correction_notes(choice)
    if law:
        chosen = known[law]
    elif choice:
        chosen = known[choice.law]
    else:
        chosen = known["chinchilla"] if not possible else min(possible, key=_simplicity)
        said.append(
            f"{len(runs)} runs are too few for rolled-out forecasts: {chosen.name} was taken for "
            "having the fewest parameters among the laws for these runs."
        )
    with progress.stage(f"fitting {chosen.name}"):
        best = fit(chosen, runs, delta=delta)
    return FittedLaw(table, best, possible, made, choice, tuple(said))


def laws(
    path: str | Path,
    *,
    law: str = "",
    columns: Sequence[str] = (),
    where: Sequence[str] = (),
    parameters: str = "",
    loss_unit: str = "",
    uniform_loss: float | None = None,
    axes: Sequence[str] = tuple(AXES),
    delta: float = DELTA,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> LawsResult:
    """Fit ``law``, or the one that forecasts best along ``axes``, to the runs of a CSV file."""
    progress = progress or Progress()
    found = fitted_law(
        path,
        law=law,
        columns=columns,
        where=where,
        parameters=parameters,
        loss_unit=loss_unit,
        uniform_loss=uniform_loss,
        axes=axes,
        delta=delta,
        compare=out is not None,
        progress=progress,
    )
    best, table, runs, said = found.fit, found.table, found.table.runs, list(found.said)
    chosen, made, choice = best.law, found.rollouts, found.choice
    others = []
    if not law or out is not None:
        others = [fit(each, runs, delta=delta) for each in found.possible if each is not chosen]
    with progress.stage("intervals"):
        ranges = profile(best)
        resampled = bootstrap(best, num_resamples, seed) if num_resamples else None
        if resampled is not None and runs.groups is not None:
            # Points of one run share its luck, which only resampling whole runs allows for.
            ranges = percentile_ranges(best, resampled)
    said += [*table.notes, *warnings(best, ranges, resampled)]
    if saturates(type(chosen)) and uniform_loss is None:
        said.append(
            f"The loss of a uniform guess was taken as ln 50,257 = {GPT2_UNIFORM_LOSS:.3f} nats "
            "per token; say --uniform-loss for another vocabulary."
        )
    result = LawsResult(table, best, ranges, said, others, made, choice)
    if out is None:
        return result
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    result = LawsResult(table, best, ranges, said, others, made, choice, folder / "report.html")
    page.write_laws(_page_of(result), folder / "report.html")
    text = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(folder / "laws.json", text)
    return result


def _can_be_fitted(law: Law, runs: Runs) -> bool:
    """Enough runs, and repetition to fit where the law has parameters for it."""
    enough = len(runs) > len(law.PARAMETERS) + 2
    varied = np.unique(runs.N).size > 1 and np.unique(runs.D).size > 1
    return enough and varied and (runs.is_repeated or not law.KNOWS_REPETITION)


def _simplicity(law: Law) -> tuple[bool, int]:
    return law.name != "chinchilla", len(law.PARAMETERS)


def _unit(unit: str, table: RunTable) -> str:
    return unit.replace("loss", table.loss_unit) if unit.startswith("loss") else unit


def _page_of(result: LawsResult) -> page.LawsPage:
    """What the page shows, all numbers computed."""
    best, runs, table = result.fit, result.fit.runs, result.table
    sure = best.certificate
    return page.LawsPage(
        title=Path(table.path).name,
        law=best.law.name,
        formula=best.law.FORMULA,
        loss_unit="nats per token" if table.loss_unit == NATS else "bits per byte",
        counted=table.counted,
        num_runs=len(runs),
        rms=best.rms,
        objective=best.objective,
        delta=best.delta,
        certificate=(
            f"{sure.num_same} of {sure.num_starts} independent starts, the best of "
            f"{sure.num_scanned:,} scanned points, end at the same objective; gradient "
            f"{sure.gradient_norm:.1g}."
        ),
        warnings=result.warnings,
        parameters=[
            page.ParameterRow(
                each.name,
                best.parameters[each.name],
                result.intervals[each.name].low,
                result.intervals[each.name].high,
                _unit(each.unit, table),
                each.meaning,
            )
            for each in best.law.PARAMETERS
        ],
        interval_method=next(iter(result.intervals.values())).method,
        rollouts=[
            page.RolloutRow(each.axis, each.cutoff, each.num_train, each.num_test, each.errors)
            for each in result.rollouts
        ],
        scores=dict(result.choice.scores) if result.choice else {},
        choice=result.choice.reason if result.choice else "",
        chosen=result.choice.law if result.choice else "",
        fits=[(each.law.name, each.rms) for each in [best, *result.others]],
        points=page.Points(
            runs.N.tolist(),
            runs.D.tolist(),
            runs.epochs.tolist(),
            runs.loss.tolist(),
            best.predict(runs).tolist(),
        ),
        isoflop=_isoflop(best),
        isoloss=_isoloss(best),
        repetition=_repetition(best) if runs.is_repeated else [],
    )


def _isoflop(best: Fit, num: int = 5) -> list[page.Curve]:
    """Loss over model size at fixed compute on new tokens, over the range of the runs."""
    runs = best.runs
    curves = []
    ends = np.log([runs.D.min() / 3, runs.D.max() * 3])
    middle, reach = ends.mean(), (ends[1] - ends[0]) / 2
    for flops in np.geomspace(np.quantile(runs.flops, 0.1), runs.flops.max(), num):
        N = np.geomspace(runs.N.min() / 2, runs.N.max() * 2, 81)
        D = flops / 6 / N
        inside = np.abs(np.log(D) - middle) <= reach
        if inside.sum() < 3:
            continue
        loss = best.predict(points(N[inside], D[inside]))
        curves.append(page.Curve(f"{flops:.1e} FLOPs", N[inside].tolist(), loss.tolist()))
    return curves


def _isoloss(best: Fit, num: int = 41) -> page.Grid:
    """Loss over model size and new tokens."""
    runs = best.runs
    N = np.geomspace(runs.N.min(), runs.N.max(), num)
    D = np.geomspace(runs.D.min(), runs.D.max(), num)
    loss = best.predict(points(np.tile(N, num), np.repeat(D, num))).reshape(num, num)
    return page.Grid(N.tolist(), D.tolist(), loss.tolist())


def _repetition(best: Fit) -> list[page.Curve]:
    """Loss over epochs of the smallest and the middle number of unique tokens, by model size."""
    runs = best.runs
    repeated = runs[runs.epochs > 1.01]
    U = float(np.quantile(repeated.U, 0.25, method="nearest"))
    epochs = np.geomspace(1, repeated.epochs.max(), 61)
    sizes = np.quantile(repeated.N, [0.1, 0.5, 0.9], method="nearest")
    return [
        page.Curve(
            f"{N:.2g} parameters, {U:.2g} unique tokens",
            epochs.tolist(),
            best.predict(points(np.full(61, N), U * epochs, U)).tolist(),
        )
        for N in dict.fromkeys(map(float, sizes))
    ]
