"""A table of runs with the law that was named or chosen for it by rolled-out forecasts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from heldout.core.discovery import entries_of, plugin_class
from heldout.core.errors import UserError, did_you_mean
from heldout.core.progress import Progress
from heldout.scaling.diverged import repeated_notes
from heldout.scaling.fit import Fit, fit
from heldout.scaling.huber import DELTA
from heldout.scaling.law import Law
from heldout.scaling.rollout import AXES, Choice, Rollout, choose, correction_notes, rollouts
from heldout.scaling.runs import Runs
from heldout.scaling.table import RunTable, read_runs


@dataclass(frozen=True)
class OwnRuns:
    """A CSV file of finished runs, and how to read it.

    ``columns`` maps, as ``D=tokens_b*1e9``; ``where`` keeps ``column=value``; ``counted`` is how N
    was: total or non-embedding. ``uniform_loss`` is the loss of a uniform guess over the runs'
    vocabulary, for laws that saturate.
    """

    path: str | Path
    columns: Sequence[str] = ()
    where: Sequence[str] = ()
    counted: str = ""
    loss_unit: str = ""
    uniform_loss: float | None = None

    def table(self) -> RunTable:
        """The runs; UserError for bad input."""
        return read_runs(
            self.path,
            columns=self.columns,
            where=self.where,
            counted=self.counted,
            loss_unit=self.loss_unit,
        )


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
    own: OwnRuns,
    *,
    law: str = "",
    axes: Sequence[str] = tuple(AXES),
    delta: float = DELTA,
    compare: bool = False,
    progress: Progress | None = None,
) -> FittedLaw:
    """Read the runs, choose a law by its forecasts unless one is named, and fit it.

    Forecasts are rolled out along ``axes``; ``compare`` makes them even where a law is named.
    ``delta`` is that of the Huber loss of log residuals. Raises UserError for bad runs, and for an
    unknown law or axis.
    """
    progress = progress or Progress()
    _check(own.uniform_loss, delta, axes)
    known = {each.name: each for each in all_laws(own.uniform_loss)}
    law = law.replace("-", "_")
    if law and law not in known:
        raise UserError(f"Unknown law {law!r}{did_you_mean(law, list(known))}")
    table = own.table()
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
    with progress.stage(f"fitting the law {chosen.name}"):
        best = fit(chosen, runs, delta=delta)
    said += repeated_notes(table.lines, best)
    return FittedLaw(table, best, possible, made, choice, tuple(said))


def _check(uniform_loss: float | None, delta: float, axes: Sequence[str]) -> None:
    if uniform_loss is not None and not uniform_loss > 0:
        raise UserError(f"--uniform-loss must be positive, got {uniform_loss}.")
    if not delta > 0:
        raise UserError(f"--delta must be positive, a size of log residuals, got {delta}.")
    for axis in axes:
        if axis not in AXES:
            raise UserError(f"Unknown axis {axis!r}{did_you_mean(axis, list(AXES))}")


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


def _can_be_fitted(law: Law, runs: Runs) -> bool:
    """Enough runs, and repetition to fit where the law has parameters for it."""
    enough = len(runs) > len(law.PARAMETERS) + 2
    varied = np.unique(runs.N).size > 1 and np.unique(runs.D).size > 1
    return enough and varied and (runs.is_repeated or not law.KNOWS_REPETITION)


def _simplicity(law: Law) -> tuple[bool, int]:
    return law.name != "chinchilla", len(law.PARAMETERS)
