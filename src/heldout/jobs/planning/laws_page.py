"""From a fitted law to what its page shows, all numbers computed."""

from pathlib import Path

import numpy as np

from heldout.jobs.planning.laws_result import LawsResult, parameter_unit
from heldout.report import laws as page
from heldout.scaling.fit import Fit
from heldout.scaling.isoloss import loss_grid
from heldout.scaling.runs import points
from heldout.scaling.table import NATS


def laws_page(result: LawsResult) -> page.LawsPage:
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
                parameter_unit(each.unit, table),
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
    loss = loss_grid(best.law, best.values, N, D)
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
