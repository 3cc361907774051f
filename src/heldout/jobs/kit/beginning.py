"""The beginning of a training as a trial of the learning-rate search leaves it, in files alone.

A process that made a trial and one that goes on from it share nothing else.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.core.files import write_text
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation, Weights
from heldout.core.run import Run
from heldout.core.run_files import RateTrial
from heldout.search.learning_rate import rate_name

SEARCH = "checkpoints/search"


@dataclass(frozen=True)
class Logged:
    """An evaluation's place in a training: mean training loss since the last, learning rate.

    ``weights`` are those that were kept.
    """

    step: int
    epoch: float
    training_loss: float | None
    learning_rate: float
    weights: Weights = "raw"


@dataclass(frozen=True)
class Beginning:
    """A folder: ``trial.json`` once it has ended, losses, weights at evaluations, a checkpoint."""

    folder: Path

    @classmethod
    def of(cls, run: Run, learning_rate: float) -> "Beginning":
        return cls(run.path(f"{SEARCH}/{rate_name(learning_rate)}"))

    def start(self) -> None:
        """An empty folder; what a killed trial left is removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "losses").mkdir(parents=True)
        (self.folder / "weights").mkdir()

    def weights(self, step: int) -> Path:
        """What ``save_model`` wrote at an evaluation."""
        return self.folder / "weights" / f"step-{step:06d}"

    def save_losses(self, found: Evaluation) -> None:
        """Of the validation rows, also at the last step where the training has no evaluation."""
        found.validation.save(self._losses(found.step))
        if found.other is not None:
            found.other.save(self._losses(found.step, "-other"))

    def losses(self, step: int) -> DocumentLosses | None:
        path = self._losses(step)
        return DocumentLosses.load(path) if path.exists() else None

    def lowest(self) -> DocumentLosses | None:
        """Those of the evaluation with the lowest loss; None where the folder has gone."""
        paths = (self.folder / "losses").glob("step-*[0-9].npz")
        found = [DocumentLosses.load(path) for path in sorted(paths)]
        return min(found, key=lambda losses: losses.nats_per_token, default=None)

    def evaluation(self, logged: Logged) -> Evaluation:
        """What was measured at an evaluation."""
        losses, other = self.losses(logged.step), self._losses(logged.step, "-other")
        assert losses is not None, f"the trial has no losses at step {logged.step}"
        beside = DocumentLosses.load(other) if other.exists() else None
        return Evaluation(logged.step, logged.epoch, losses, logged.weights, beside)

    def _losses(self, step: int, ending: str = "") -> Path:
        return self.folder / "losses" / f"step-{step:06d}{ending}.npz"

    def end(self, trial: RateTrial, recipe: Recipe, evaluations: Sequence[Logged]) -> None:
        """Write how the trial went, which says that all else is there."""
        about = {
            "trial": trial.to_json(),
            "recipe": _settings(recipe),
            "evaluations": [vars(each) for each in evaluations],
        }
        write_text(self.folder / "trial.json", json.dumps(about, indent=2))

    def trial(self, recipe: Recipe) -> RateTrial | None:
        """How it went, where it has ended and was made by the settings of ``recipe``."""
        about = self._about()
        if about is None or about["recipe"] != _settings(recipe):
            return None
        return RateTrial.from_json(about["trial"])

    @property
    def logged(self) -> list[Logged]:
        about = self._about()
        return [Logged(**each) for each in about["evaluations"]] if about else []

    @property
    def checkpoint(self) -> Path | None:
        """The Trainer's checkpoint at the end; None for a trial that was not the best so far."""
        states = self.folder.glob("checkpoint-*/trainer_state.json")
        return next((path.parent for path in states), None)

    def let_go(self) -> None:
        """Keep the losses alone, which trials of the same round are still compared with."""
        shutil.rmtree(self.folder / "weights", ignore_errors=True)
        for path in self.folder.glob("checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _about(self) -> dict[str, Any] | None:
        path = self.folder / "trial.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _settings(recipe: Recipe) -> str:
    """All that a training depends on, as text: grids, trackers and the control play no part."""
    same = {key: getattr(Recipe().train, key) for key in ("checkpoint_minutes", "side_by_side")}
    return recipe.replace(
        train={"learning_rate": None, "report_to": (), **same},
        search={"ranges": {}},
        control=vars(Recipe().control),
    ).to_toml()
