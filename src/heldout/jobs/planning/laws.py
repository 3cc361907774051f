"""Fit and compare scaling laws: a table of finished runs to a law that forecasts, and its limits.

``laws("runs.csv")`` reads the runs, chooses a law by rolled-out forecasts (or takes the one named),
fits it to a certified optimum, and says what the runs cannot tell. With ``out`` it writes
``laws.json`` and a page with the figures.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from heldout.core.progress import Progress
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.jobs.planning.fitted_law import OwnRuns, fitted_law, saturates
from heldout.jobs.planning.laws_page import laws_page
from heldout.jobs.planning.laws_result import LawsResult
from heldout.report import laws as page
from heldout.scaling.fit import fit
from heldout.scaling.huber import DELTA
from heldout.scaling.intervals import (
    NUM_RESAMPLES,
    bootstrap,
    percentile_ranges,
    profile,
    warnings,
)
from heldout.scaling.rollout import AXES
from heldout.scaling.saturating import GPT2_UNIFORM_LOSS


def laws(
    runs: OwnRuns | str | Path,
    *,
    law: str = "",
    axes: Sequence[str] = tuple(AXES),
    delta: float = DELTA,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> LawsResult:
    """Fit ``law``, or the one that forecasts best along ``axes``, to the runs of a CSV file.

    Raises UserError for bad runs, and for an unknown law or axis.
    """
    progress = progress or Progress()
    own = runs if isinstance(runs, OwnRuns) else OwnRuns(runs)
    found = fitted_law(
        own, law=law, axes=axes, delta=delta, compare=out is not None, progress=progress
    )
    best = found.fit
    others = []
    if not law or out is not None:
        rest = (each for each in found.possible if each is not best.law)
        others = [fit(each, best.runs, delta=delta) for each in rest]
    with progress.stage("intervals"):
        ranges = profile(best)
        resampled = bootstrap(best, num_resamples, seed) if num_resamples else None
        if resampled is not None and best.runs.groups is not None:
            # Points of one run share its luck, which only resampling whole runs allows for.
            ranges = percentile_ranges(best, resampled)
    said = [*found.said, *found.table.notes, *warnings(best, ranges, resampled)]
    if saturates(type(best.law)) and own.uniform_loss is None:
        said.append(
            f"The loss of a uniform guess was taken as ln 50,257 = {GPT2_UNIFORM_LOSS:.3f} nats "
            "per token; say --uniform-loss for another vocabulary."
        )
    result = LawsResult(found.table, best, ranges, said, others, found.rollouts, found.choice)
    if out is None:
        return result
    folder = Path(out)
    result = replace(result, report=folder / "report.html")
    write_page_folder(
        folder,
        "laws.json",
        result.to_json(),
        lambda path: page.write_laws(laws_page(result), path),
    )
    return result
