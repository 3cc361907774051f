"""What ``laws`` found, typed; its page and its JSON hold nothing else."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heldout.core.shown import Shown
from heldout.scaling.fit import Fit
from heldout.scaling.intervals import Range
from heldout.scaling.rollout import Choice, Rollout
from heldout.scaling.table import RunTable

SCHEMA = "heldout.laws/1"


@dataclass(frozen=True)
class LawsResult(Shown):
    """The fitted law with its intervals and warnings, the other laws, and how it was chosen."""

    table: RunTable
    fit: Fit
    intervals: dict[str, Range]
    warnings: list[str]
    others: list[Fit]
    rollouts: list[Rollout]
    choice: Choice | None
    report: Path | None = None

    def table_rows(self) -> list[dict[str, Any]]:
        """Each law that was fitted, with its parameters; the chosen one first."""
        return [
            {"law": each.law.name, "objective": each.objective, **each.parameters}
            for each in (self.fit, *self.others)
        ]

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
                **{each.name: parameter_unit(each.unit, self.table) for each in law.PARAMETERS},
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


def parameter_unit(unit: str, table: RunTable) -> str:
    """A parameter's unit, with the unit of the table's loss in it."""
    return unit.replace("loss", table.loss_unit) if unit.startswith("loss") else unit
