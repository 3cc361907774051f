"""A typed view of one run folder, as docs/run_folder.md lays it out.

Whatever is missing is None or empty, so that an interrupted or failed run still gets its report;
whatever cannot be read is named in ``problems`` and never taken for a result.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import (
    Contrast,
    Measurement,
    NotMeasured,
    measurement_from_json,
)
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import Remedy
from heldout.core.run import Run
from heldout.core.run_files import (
    AblatedPart,
    ComparedPoint,
    FoldCurve,
    HistoryEntry,
    Neighbor,
    PreflightCheck,
    RateSearch,
    RunSample,
)
from heldout.core.search_space import Point
from heldout.core.verdict import Verdicts

MODELS = ("base", "best", "last", "fixed_epochs")
PARTS = ("train", "validation", "test", "out_of_fold")

_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError),
    UserError,
)
T = TypeVar("T")


@dataclass(frozen=True)
class Tuning:
    """The search over the recipe's ranges: where it ended, and what says so."""

    sentence: str
    chosen: Point
    neighbors: tuple[Neighbor, ...]  # of a search by coordinates
    compared: tuple[ComparedPoint, ...] = ()  # of other searches, the lowest loss first


@dataclass(frozen=True)
class Ablation:
    """What each part of the recipe is worth."""

    sentence: str
    parts: tuple[AblatedPart, ...]
    not_tried: tuple[str, ...]


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
    checks: tuple[PreflightCheck, ...] = ()
    augmentation: tuple[Augmented, ...] = ()
    search: RateSearch | None = None
    tuning: Tuning | None = None
    ablation: Ablation | None = None
    history: tuple[HistoryEntry, ...] = ()
    control_history: tuple[HistoryEntry, ...] = ()
    cross_validation: FoldCurve | None = None
    measured: dict[str, Measurement] = field(default_factory=dict)
    not_measured: tuple[NotMeasured, ...] = ()
    verdict: Verdicts | None = None
    remedies: tuple[Remedy, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    samples: tuple[RunSample, ...] = ()
    openings: tuple[dict[str, str], ...] = ()
    documents: dict[tuple[str, str], DocumentLosses] = field(default_factory=dict)
    changed_parts: tuple[str, ...] | None = None  # None: there is no file or no hash to compare
    problems: tuple[str, ...] = ()
    is_redacted: bool = False  # see heldout.report.redacted

    @property
    def is_cross_validated(self) -> bool:
        return self.data.get("mode") == "cross_validation"

    @property
    def has_test(self) -> bool:
        """A cross-validated run has a sealed test part where the user gave one."""
        return bool((self.data.get("rows") or {}).get("test"))

    @property
    def unseen(self) -> str:
        """Prefix of what was measured on text that was not trained on."""
        return "out_of_fold" if self.is_cross_validated else "test"

    @property
    def kept(self) -> HistoryEntry | None:
        """The evaluation whose checkpoint is in ``best/``: the last one that was a new low."""
        return next((entry for entry in reversed(self.history) if entry.is_best), None)

    @property
    def has_averages(self) -> bool:
        """Whether averaged weights were measured beside the raw ones."""
        return any(entry.other_nll is not None for entry in self.history)

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

    def lines(name: str) -> tuple[HistoryEntry, ...]:
        if not run.path(name).exists():
            return ()
        try:
            return tuple(HistoryEntry.from_json(entry) for entry in run.history(name))
        except _UNREADABLE:
            problems.append(name)
            return ()

    entries: list[Measurement | NotMeasured] = read("measurements.json", _measurements, [])
    data: dict[str, Any] = read("data.json", _data, {})
    return RunSummary(
        name=run.folder.resolve().name,
        status=read("status.json", _table, {}),
        recipe=_recipe(run, problems),
        environment=read("environment.json", _table, {}),
        data=data,
        checks=read("checks.json", _checks, ()),
        augmentation=read("augmentation.json", _augmentation, ()),
        search=read("search.json", _search, None),
        tuning=read("tuning.json", _tuning, None),
        ablation=read("ablation.json", _ablation, None),
        history=lines("history.jsonl"),
        control_history=lines("control_history.jsonl"),
        cross_validation=read("cross_validation.json", FoldCurve.from_json, None),
        measured={entry.name: entry for entry in entries if isinstance(entry, Measurement)},
        not_measured=tuple(entry for entry in entries if isinstance(entry, NotMeasured)),
        verdict=read("verdict.json", Verdicts.from_json, None),
        remedies=read("remedies.json", _remedies, ()),
        result=read("result.json", _table, {}),
        samples=read("samples.json", _samples, ()),
        openings=_openings(run, problems),
        documents=_documents(run, problems),
        changed_parts=_changed_parts(run, data),
        problems=tuple(problems),
    )


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"no object: {value!r:.40}")
    return value


def _data(value: Any) -> dict[str, Any]:
    """With parts and lists of the kinds that a page goes through."""
    table = _table(value)
    kinds = {"rows": dict, "groups": dict, "sha256_parts": dict, "dropped": list}
    for key, kind in kinds.items():
        if not isinstance(table.get(key), kind | None):
            raise TypeError(f"{key} is no {kind.__name__}")
    return table


def _remedies(entries: list[dict[str, Any]]) -> tuple[Remedy, ...]:
    return tuple(Remedy(**entry) for entry in entries)


def _measurements(table: dict[str, Any]) -> list[Measurement | NotMeasured]:
    return [measurement_from_json(entry) for entry in table["measurements"]]


def _checks(entries: list[dict[str, Any]]) -> tuple[PreflightCheck, ...]:
    return tuple(PreflightCheck.from_json(entry) for entry in entries)


def _augmentation(table: dict[str, Any]) -> tuple[Augmented, ...]:
    return tuple(
        Augmented(str(entry["name"]), {one.name: one for one in _measurements(entry)})
        for entry in table["augmentations"]
    )


def _tuning(table: dict[str, Any]) -> Tuning | None:
    if table["chosen"] is None:  # interrupted half-way through
        return None
    return Tuning(
        str(table["sentence"]),
        dict(table["chosen"]),
        tuple(Neighbor.from_json(entry) for entry in table["neighbors"]),
        tuple(ComparedPoint.from_json(entry) for entry in table.get("compared", ())),
    )


def _ablation(table: dict[str, Any]) -> Ablation:
    return Ablation(
        str(table["sentence"]),
        tuple(AblatedPart.from_json(entry) for entry in table["parts"]),
        tuple(map(str, table["not_tried"])),
    )


def _search(table: dict[str, Any]) -> RateSearch | None:
    """By learning rate; None before the first trial."""
    found = RateSearch.from_json(table)
    trials = tuple(sorted(found.trials, key=lambda trial: trial.learning_rate))
    return replace(found, trials=trials) if trials else None


def _samples(entries: list[dict[str, Any]]) -> tuple[RunSample, ...]:
    return tuple(RunSample.from_json(entry) for entry in entries)


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
        return tuple(map(_table, run.test_openings))
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
