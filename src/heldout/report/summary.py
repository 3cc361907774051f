"""A typed view of one run folder, as docs/run_folder.md lays it out.

Whatever is missing is None or empty, so that an interrupted or failed run still gets its report;
whatever cannot be read is named in ``problems`` and never taken for a result.
"""

import hashlib
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import (
    Contrast,
    Interval,
    Measurement,
    NotMeasured,
    measurement_from_json,
)
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import Remedy
from heldout.core.run import Run
from heldout.core.verdict import Verdicts

MODELS = ("base", "best", "last", "fixed_epochs")
PARTS = ("train", "validation", "test", "out_of_fold")

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, UserError)
T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One line of the history: where the run stood and what its losses were, in nats/token."""

    step: int
    epoch: float
    validation_nll: float | None = None
    validation_low: float | None = None
    validation_high: float | None = None
    train_nll: float | None = None
    training_loss: float | None = None
    learning_rate: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried; the loss is None where the run diverged."""

    learning_rate: float
    validation_nll: float | None
    steps: int | None
    diverged: bool


@dataclass(frozen=True)
class Search:
    trials: tuple[Trial, ...]
    chosen: float | None


@dataclass(frozen=True)
class TunedNeighbor:
    """A point one step from the chosen one; its loss minus the chosen's, None if it diverged."""

    key: str
    value: float
    difference: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Tuning:
    """The search over the recipe's grids: where it ended, and what says so."""

    sentence: str
    chosen: dict[str, float]
    neighbors: tuple[TunedNeighbor, ...]


@dataclass(frozen=True)
class FoldPoint:
    """Out-of-fold loss after ``epoch`` epochs, in nats/token with its interval."""

    epoch: float
    validation_nll: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CrossValidation:
    folds: int
    curve: tuple[FoldPoint, ...]
    best_epoch: float | None


@dataclass(frozen=True)
class Check:
    """A check made before the first step; status is ok or warning."""

    name: str
    status: str
    message: str


@dataclass(frozen=True)
class Sample:
    """A prompt with what each model wrote; None where that model wrote nothing.

    ``part`` is train for the beginning of a training row that some model recites.
    """

    prompt: str
    reference: str
    base: str | None
    best: str | None
    last: str | None
    fixed_epochs: str | None = None
    part: str = "validation"


@dataclass(frozen=True)
class Augmented:
    """What one augmentation did to a sample of the training rows, by name of the measurement."""

    name: str
    measurements: dict[str, Measurement | NotMeasured]


@dataclass(frozen=True)
class RunSummary:
    """All that the report says, before it is put into words."""

    name: str
    status: dict[str, Any]
    recipe: Recipe | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    augmentation: tuple[Augmented, ...] = ()
    search: Search | None = None
    tuning: Tuning | None = None
    history: tuple[Evaluation, ...] = ()
    control_history: tuple[Evaluation, ...] = ()
    cross_validation: CrossValidation | None = None
    measured: dict[str, Measurement] = field(default_factory=dict)
    not_measured: tuple[NotMeasured, ...] = ()
    verdict: Verdicts | None = None
    remedies: tuple[Remedy, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    openings: tuple[dict[str, str], ...] = ()
    documents: dict[tuple[str, str], DocumentLosses] = field(default_factory=dict)
    changed_parts: tuple[str, ...] | None = None  # None: there is no file or no hash to compare
    problems: tuple[str, ...] = ()

    @property
    def is_cross_validated(self) -> bool:
        return self.data.get("mode") == "cross_validation"

    @property
    def unseen(self) -> str:
        """Prefix of what was measured on text that was not trained on."""
        return "out_of_fold" if self.is_cross_validated else "test"

    @property
    def kept(self) -> Evaluation | None:
        """The evaluation whose checkpoint is in ``best/``: the last one that was a new low."""
        return next((entry for entry in reversed(self.history) if entry.is_best), None)

    def contrast(self, name: str, control: str) -> Contrast | None:
        measurement = self.measured.get(name)
        return measurement.contrasts.get(control) if measurement else None


def summarize(run: Run) -> RunSummary:
    """Read what there is of a run; raises nothing for files that are missing or broken."""
    problems: list[str] = []

    def read(name: str, parse: Callable[[Any], T], default: T) -> T:
        if not run.path(name).exists():
            return default
        try:
            return parse(run.read_json(name))
        except _UNREADABLE:
            problems.append(name)
            return default

    def lines(name: str) -> tuple[Evaluation, ...]:
        if not run.path(name).exists():
            return ()
        try:
            return tuple(_evaluation(entry) for entry in run.history(name))
        except _UNREADABLE:
            problems.append(name)
            return ()

    entries: list[Measurement | NotMeasured] = read("measurements.json", _measurements, [])
    data: dict[str, Any] = read("data.json", dict, {})
    return RunSummary(
        name=run.folder.resolve().name,
        status=read("status.json", dict, {}),
        recipe=_recipe(run, problems),
        environment=read("environment.json", dict, {}),
        data=data,
        checks=read("checks.json", _checks, ()),
        augmentation=read("augmentation.json", _augmentation, ()),
        search=read("search.json", _search, None),
        tuning=read("tuning.json", _tuning, None),
        history=lines("history.jsonl"),
        control_history=lines("control_history.jsonl"),
        cross_validation=read("cross_validation.json", _cross_validation, None),
        measured={entry.name: entry for entry in entries if isinstance(entry, Measurement)},
        not_measured=tuple(entry for entry in entries if isinstance(entry, NotMeasured)),
        verdict=read("verdict.json", Verdicts.from_json, None),
        remedies=read("remedies.json", _remedies, ()),
        result=read("result.json", dict, {}),
        samples=read("samples.json", _samples, ()),
        openings=_openings(run, problems),
        documents=_documents(run, problems),
        changed_parts=_changed_parts(run, data),
        problems=tuple(problems),
    )


def _remedies(entries: list[dict[str, Any]]) -> tuple[Remedy, ...]:
    return tuple(Remedy(**entry) for entry in entries)


def finite(value: Any) -> float | None:
    """A real number, or None for null, NaN, infinity and what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _evaluation(entry: dict[str, Any]) -> Evaluation:
    return Evaluation(
        step=int(entry["step"]),
        epoch=float(entry["epoch"]),
        validation_nll=finite(entry.get("validation_nll")),
        validation_low=finite(entry.get("validation_low")),
        validation_high=finite(entry.get("validation_high")),
        train_nll=finite(entry.get("train_nll")),
        training_loss=finite(entry.get("training_loss")),
        learning_rate=finite(entry.get("learning_rate")),
        is_best=bool(entry.get("is_best")),
    )


def _measurements(table: dict[str, Any]) -> list[Measurement | NotMeasured]:
    return [measurement_from_json(entry) for entry in table["measurements"]]


def _checks(entries: Any) -> tuple[Check, ...]:
    return tuple(
        Check(str(entry["name"]), str(entry["status"]), str(entry.get("message", "")))
        for entry in entries
    )


def _augmentation(table: dict[str, Any]) -> tuple[Augmented, ...]:
    return tuple(
        Augmented(str(entry["name"]), {one.name: one for one in _measurements(entry)})
        for entry in table["augmentations"]
    )


def _tuning(table: dict[str, Any]) -> Tuning | None:
    if table["chosen"] is None:  # interrupted half-way through
        return None
    neighbors = []
    for entry in table["neighbors"]:
        bounds = entry["interval"]
        interval = None if bounds is None else Interval(**bounds)
        value = float(entry["value"])
        neighbors.append(
            TunedNeighbor(str(entry["coordinate"]), value, finite(entry["difference"]), interval)
        )
    chosen = {str(key): float(value) for key, value in table["chosen"].items()}
    return Tuning(str(table["sentence"]), chosen, tuple(neighbors))


def _search(table: dict[str, Any]) -> Search | None:
    trials = []
    for entry in table["trials"]:
        nll = finite(entry.get("validation_nll"))
        diverged = bool(entry.get("diverged")) or nll is None
        trials.append(
            Trial(
                float(entry["learning_rate"]),
                None if diverged else nll,
                entry.get("steps"),
                diverged,
            )
        )
    trials.sort(key=lambda trial: trial.learning_rate)
    return Search(tuple(trials), finite(table.get("chosen"))) if trials else None


def _cross_validation(table: dict[str, Any]) -> CrossValidation:
    curve = tuple(
        FoldPoint(
            float(entry["epoch"]),
            float(entry["validation_nll"]),
            finite(entry.get("low")),
            finite(entry.get("high")),
        )
        for entry in table["curve"]
        if finite(entry["validation_nll"]) is not None
    )
    return CrossValidation(int(table["folds"]), curve, finite(table.get("best_epoch")))


def _samples(entries: Any) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            str(entry["prompt"]),
            str(entry.get("reference") or ""),
            entry.get("base"),
            entry.get("best"),
            entry.get("last"),
            entry.get("fixed_epochs"),
            str(entry.get("part") or "validation"),
        )
        for entry in entries
    )


def _recipe(run: Run, problems: list[str]) -> Recipe | None:
    if not run.path("recipe.toml").exists():
        return None
    try:
        return run.recipe
    except _UNREADABLE:
        problems.append("recipe.toml")
        return None


def _openings(run: Run, problems: list[str]) -> tuple[dict[str, str], ...]:
    try:
        return tuple(run.test_openings)
    except _UNREADABLE:
        problems.append("data/test_openings.jsonl")
        return ()


def _changed_parts(run: Run, data: dict[str, Any]) -> tuple[str, ...] | None:
    """Parts whose files no longer have the hash of the day; hashing opens no seal."""
    recorded = data.get("sha256_parts")
    if not isinstance(recorded, dict):
        return None
    found = {
        part: hashlib.sha256(run.path(f"data/{part}.jsonl").read_bytes()).hexdigest()
        for part in recorded
        if part in PARTS and run.path(f"data/{part}.jsonl").is_file()
    }
    if not found:
        return None
    return tuple(part for part, digest in found.items() if digest != recorded[part])


def _documents(run: Run, problems: list[str]) -> dict[tuple[str, str], DocumentLosses]:
    documents = {}
    for model in MODELS:
        for part in PARTS:
            try:
                losses = run.losses(model, part)
            except (*_UNREADABLE, zipfile.BadZipFile, EOFError):
                problems.append(f"evaluations/{model}-{part}.npz")
                continue
            if losses is not None and len(losses):
                documents[model, part] = losses
    return documents
