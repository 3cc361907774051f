"""What the files of a run folder hold: jobs write them, the report reads them.

``from_json`` takes runs of earlier versions too: numbers that are missing or not finite become
None, fields it does not know are left out. It raises KeyError for what no run can lack.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from heldout.core.finite import finite, without_infinity
from heldout.core.measurement import Interval
from heldout.core.regularizer import Weights
from heldout.core.search_space import Point

Compared = Literal["worse", "not surely better", "diverged"]


@dataclass(frozen=True)
class PreflightCheck:
    """One line of ``checks.json``: what was checked before the first step, and how it went.

    What fails raises UserError instead.
    """

    name: str
    status: Literal["ok", "warning"]
    message: str

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "PreflightCheck":
        status: Literal["ok", "warning"] = "warning" if entry["status"] == "warning" else "ok"
        return cls(str(entry["name"]), status, str(entry.get("message", "")))


@dataclass(frozen=True)
class HistoryEntry:
    """One line of ``history.jsonl``: where the run stood and its losses, in nats/token.

    ``change_low`` and ``change_high`` bound validation minus that of the best one so far, paired
    by document; None for the first. Losses are of ``weights``; ``other_nll`` is the validation loss
    of the average or of the raw weights that was measured beside and was no better.
    """

    step: int
    epoch: float
    validation_nll: float | None = None
    validation_low: float | None = None
    validation_high: float | None = None
    train_nll: float | None = None
    training_loss: float | None = None
    learning_rate: float | None = None
    is_best: bool = False
    change_low: float | None = None
    change_high: float | None = None
    rolled_back: bool = False
    weights: Weights = "raw"
    other_nll: float | None = None

    def to_json(self) -> dict[str, Any]:
        return without_infinity(asdict(self))

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "HistoryEntry":
        return cls(
            step=int(entry["step"]),
            epoch=float(entry["epoch"]),
            validation_nll=finite(entry.get("validation_nll")),
            validation_low=finite(entry.get("validation_low")),
            validation_high=finite(entry.get("validation_high")),
            train_nll=finite(entry.get("train_nll")),
            training_loss=finite(entry.get("training_loss")),
            learning_rate=finite(entry.get("learning_rate")),
            is_best=bool(entry.get("is_best")),
            change_low=finite(entry.get("change_low")),
            change_high=finite(entry.get("change_high")),
            rolled_back=bool(entry.get("rolled_back")),
            weights=_weights(entry),
            other_nll=finite(entry.get("other_nll")),
        )


def _weights(entry: dict[str, Any]) -> Weights:
    return "average" if entry.get("weights") == "average" else "raw"


@dataclass(frozen=True)
class RateTrial:
    """One short training: the held-out loss in nats/token, None where it diverged.

    One that was ``stopped_early`` could surely not become the best; its loss is that of its last
    evaluation.
    """

    learning_rate: float
    validation_nll: float | None
    steps: int
    stopped_early: bool = False
    seconds: float | None = None

    @property
    def diverged(self) -> bool:
        return self.validation_nll is None

    @property
    def loss(self) -> float:
        """What the search compares: infinite where training did not come to its end."""
        nll = None if self.stopped_early else self.validation_nll
        return float("inf") if nll is None else nll

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "diverged": self.diverged}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "RateTrial":
        return cls(
            float(entry["learning_rate"]),
            None if entry.get("diverged") else finite(entry.get("validation_nll")),
            int(entry.get("steps") or 0),
            bool(entry.get("stopped_early")),
            finite(entry.get("seconds")),
        )


@dataclass(frozen=True)
class RateSearch:
    """``search.json``: the trials of learning rates; ``chosen`` is None half-way through.

    ``handed_on`` are the steps of the chosen one from which the run's training went on: 0 where it
    began anew.
    """

    trials: tuple[RateTrial, ...]
    chosen: float | None
    handed_on: int = 0

    @property
    def winner(self) -> RateTrial | None:
        return next((t for t in self.trials if t.learning_rate == self.chosen), None)

    @property
    def seconds_handed_on(self) -> float:
        """Of the training's own time, what its first steps took as a trial."""
        winner = self.winner if self.handed_on else None
        return (winner.seconds or 0.0) if winner else 0.0

    @property
    def seconds_apart(self) -> float:
        """What the search took beside the training."""
        return sum(trial.seconds or 0.0 for trial in self.trials) - self.seconds_handed_on

    def to_json(self) -> dict[str, Any]:
        return {
            "trials": [trial.to_json() for trial in self.trials],
            "chosen": self.chosen,
            "handed_on": self.handed_on,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "RateSearch":
        trials = tuple(RateTrial.from_json(trial) for trial in entry["trials"])
        return cls(trials, finite(entry.get("chosen")), int(entry.get("handed_on") or 0))


@dataclass(frozen=True)
class Neighbor:
    """A point of ``tuning.json`` one step away from the chosen one, and how it compares."""

    coordinate: str
    value: float
    loss: float | None  # nats per token, None where training diverged
    difference: float | None  # neighbor minus chosen; positive is worse
    interval: Interval | None  # of the difference, over groups
    verdict: Compared

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Neighbor":
        bounds = entry["interval"]
        return cls(
            str(entry["coordinate"]),
            float(entry["value"]),
            finite(entry.get("loss")),
            finite(entry["difference"]),
            None if bounds is None else Interval.from_json(bounds),
            entry.get("verdict", "not surely better"),
        )


@dataclass(frozen=True)
class ComparedPoint:
    """Another point of ``tuning.json`` than the chosen one, and how it compares.

    ``difference`` is this one minus the chosen, in nats per token; positive is worse.
    """

    point: Point
    num_seeds: int
    difference: float
    interval: Interval

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "ComparedPoint":
        difference = float(entry["difference"])
        bounds = Interval.from_json(entry["interval"])
        return cls(dict(entry["point"]), int(entry["num_seeds"]), difference, bounds)


@dataclass(frozen=True)
class AblatedPart:
    """A part in ``ablation.json``: how much worse the recipe is without it, in nats per token.

    ``difference`` is None where training diverged without it.
    """

    part: str  # regularizers.NAME or augment.NAME
    difference: float | None
    interval: Interval | None
    verdict: str

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "AblatedPart":
        bounds = entry["interval"]
        return cls(
            str(entry["part"]),
            finite(entry["difference"]),
            None if bounds is None else Interval.from_json(bounds),
            str(entry["verdict"]),
        )


@dataclass(frozen=True)
class FoldPoint:
    """Out-of-fold loss of ``weights`` after ``epoch`` epochs, in nats/token with its interval."""

    epoch: float
    validation_nll: float
    low: float | None
    high: float | None
    weights: Weights = "raw"


@dataclass(frozen=True)
class FoldCurve:
    """``cross_validation.json``: the mean curve over folds and the epoch of its lowest point."""

    folds: int
    curve: tuple[FoldPoint, ...]
    best_epoch: float | None

    def to_json(self) -> dict[str, Any]:
        curve = [without_infinity(asdict(point)) for point in self.curve]
        return {"folds": self.folds, "curve": curve, "best_epoch": self.best_epoch}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "FoldCurve":
        """Points without a finite loss are left out."""
        curve = tuple(
            FoldPoint(
                float(point["epoch"]),
                float(point["validation_nll"]),
                finite(point.get("low")),
                finite(point.get("high")),
                _weights(point),
            )
            for point in entry["curve"]
            if finite(point["validation_nll"]) is not None
        )
        return cls(int(entry["folds"]), curve, finite(entry.get("best_epoch")))


@dataclass(frozen=True)
class RunSample:
    """One prompt of ``samples.json`` with what each model wrote; None where one wrote nothing.

    ``part`` is train for the beginning of a training row that some model has memorized.
    """

    part: str
    prompt: str
    reference: str
    base: str | None = None
    best: str | None = None
    last: str | None = None
    fixed_epochs: str | None = None

    def to_json(self) -> dict[str, str]:
        """Without the models that wrote nothing."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "RunSample":
        return cls(
            part=str(entry.get("part") or "validation"),
            prompt=str(entry["prompt"]),
            reference=str(entry.get("reference") or ""),
            base=entry.get("base"),
            best=entry.get("best"),
            last=entry.get("last"),
            fixed_epochs=entry.get("fixed_epochs"),
        )
