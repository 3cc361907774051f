"""What the report says in words and tables, from a run's summary; None or empty means silence."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from heldout.core.finite import finite
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import Remedy
from heldout.core.run_files import RunSample
from heldout.core.verdict import VERDICTS, Verdicts
from heldout.report import words
from heldout.report.summary import RunSummary

COLOR_WORDS = {"green": "Good", "yellow": "Caution", "red": "Problem", "unknown": "Not measured"}
VERDICT_SUBJECTS = {
    "fit": "predicting unseen text",
    "quality": "the task itself",
    "generation": "what it writes",
    "memorization": "reciting training rows",
    "forgetting": "what the base model knew",
    "leakage": "unseen text really unseen",
    "confidence": "trust in its own probabilities",
}
PART_WORDS = {"train": "Training", "validation": "Validation", "test": "Sealed test"}
TRAINERS = {
    "heldout": "heldout",
    "trl": "TRL",
    "axolotl": "axolotl",
    "llama-factory": "LLaMA-Factory",
    "unsloth": "unsloth",
}


@dataclass(frozen=True)
class VerdictCard:
    name: str
    subject: str
    color: str
    word: str
    sentence: str
    measurements: tuple[str, ...]


@dataclass(frozen=True)
class RecipeSetting:
    """A recipe field; ``default`` is what the field is where nobody sets it."""

    key: str
    value: str
    default: str
    changed: bool


@dataclass(frozen=True)
class MeasurementRow:
    """A table line; ``is_contrast`` for the difference to a control under its measurement."""

    label: str
    value: str
    interval: str
    unit: str
    detail: str
    is_contrast: bool = False


@dataclass(frozen=True)
class AugmentationRow:
    """A table line; ``loss`` is the base model's on variants minus that on their originals."""

    name: str
    unchanged: str
    new_words: str
    loss: str
    interval: str
    similarity: str
    note: str


@dataclass(frozen=True)
class PartRow:
    name: str
    rows: str
    groups: str
    tokens: str
    sha256: str


@dataclass(frozen=True)
class Writing:
    """What one or more models wrote after a prompt; equal texts are shown once."""

    label: str
    text: str


def split_sentences(text: str) -> list[str]:
    """A text as its sentences; a full stop inside a number ends none."""
    return re.split(r"(?<=[.!?]) (?=[A-Z])", text)


def run_headline(summary: RunSummary) -> str:
    """The verdict's sentence; without a verdict, how far the run came."""
    if summary.verdict is not None:
        return summary.verdict.headline
    state = summary.status.get("state")
    where = ""
    if summary.history:
        last = summary.history[-1]
        where = f" at epoch {words.epoch(last.epoch)} (step {last.step})"
    if state == "failed":
        return f"This run failed{where} and reached no verdict."
    if state == "interrupted":
        return f"This run was interrupted{where}, before a verdict was reached."
    if state == "complete":
        return "This run is complete, but holds no verdict."
    return f"This run has not finished{where}: there is no verdict yet."


def notice(summary: RunSummary) -> str:
    """What a reader must know before believing the page; empty for a complete run."""
    parts = []
    state = summary.status.get("state", "unknown")
    message = summary.status.get("message", "")
    if state != "complete":
        parts.append(f"State of the run: {state}. {message}".strip())
    if summary.problems:
        parts.append(f"Could not be read and is left out: {', '.join(summary.problems)}.")
    return " ".join(parts)


def verdict_cards(found: Verdicts | None) -> list[VerdictCard]:
    """The seven verdicts in their order; none without a verdict."""
    if found is None:
        return []
    cards = []
    for name in VERDICTS:
        verdict = found.verdicts[name]
        color = verdict.color if verdict.color in COLOR_WORDS else "unknown"
        cards.append(
            VerdictCard(
                words.sentence_case(name),
                VERDICT_SUBJECTS[name],
                color,
                COLOR_WORDS[color],
                verdict.sentence,
                tuple(words.quantity(measured) for measured in verdict.measurements),
            )
        )
    return cards


def remedies(found: Iterable[Remedy]) -> list[tuple[Remedy, list[tuple[str, str]]]]:
    """Each remedy with its settings by trainer, this tool first."""
    return [
        (
            remedy,
            [
                (label, remedy.settings[name])
                for name, label in TRAINERS.items()
                if name in remedy.settings
            ],
        )
        for remedy in found
    ]


def part_rows(summary: RunSummary) -> list[PartRow]:
    """Rows, groups, scored tokens and hash of each part."""
    facts = {key: summary.data.get(key) for key in ("rows", "groups", "tokens", "sha256_parts")}
    tables = {key: value for key, value in facts.items() if isinstance(value, dict)}
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    names = [name for name in names if tables.get("rows", {}).get(name) != 0]
    names.sort(key=lambda name: list(PART_WORDS).index(name) if name in PART_WORDS else 9)

    def cell(key: str, name: str) -> str:
        value = tables.get(key, {}).get(name)
        return words.integer(value) if isinstance(value, int) else "–"

    return [
        PartRow(
            PART_WORDS.get(name, words.sentence_case(name)),
            cell("rows", name),
            cell("groups", name),
            cell("tokens", name),
            str(tables.get("sha256_parts", {}).get(name, "")),
        )
        for name in names
    ]


def seed_sentence(summary: RunSummary) -> str:
    """What the intervals are conditional on."""
    if summary.recipe is None:
        return ""
    return (
        f"Intervals say how results would vary over other documents, for this one training seed "
        f"({summary.recipe.train.seed}) and this one split (seed {summary.recipe.data.seed}); they "
        "do not cover what another seed would give."
    )


def looks_sentence(summary: RunSummary) -> str:
    """How often held-out rows chose, which flatters their loss and not that of the sealed test."""
    found = summary.result.get("validation_looks")
    if not isinstance(found, dict) or {"trainings", "evaluations"} - found.keys():
        return ""
    trainings = words.count(int(found["trainings"]), "training")
    evaluations = words.count(int(found["evaluations"]), "evaluation")
    if summary.is_cross_validated:
        return f"Folds chose among {evaluations} of {trainings}, which flatters their loss."
    return f"The validation part chose among {evaluations} of {trainings}, which flatters its loss."


def dropped_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Reason and number of rows that were left out; zero counts are not news."""
    dropped = summary.data.get("dropped") or []
    lines = [
        (str(entry.get("reason", "")), words.integer(entry["count"]))
        for entry in dropped
        if isinstance(entry, dict) and entry.get("count")
    ]
    duplicates = summary.data.get("duplicates")
    if isinstance(duplicates, int) and duplicates:
        lines.append(
            ("duplicates and near duplicates, kept together in one part", words.integer(duplicates))
        )
    return lines


def settings(recipe: Recipe | None) -> list[RecipeSetting]:
    """Every field of the recipe, those that differ from the default first."""
    if recipe is None:
        return []
    default = Recipe()
    rows = []
    for item in fields(recipe):
        section, plain = getattr(recipe, item.name), getattr(default, item.name)
        if is_dataclass(section):
            for part in fields(section):
                value, usual = getattr(section, part.name), getattr(plain, part.name)
                key = f"{item.name}.{part.name}"
                rows.append(RecipeSetting(key, _shown(value), _shown(usual), value != usual))
    for kind in ("regularizers", "augment"):
        for name, parameters in getattr(recipe, kind).items():
            if not parameters:
                rows.append(RecipeSetting(f"{kind}.{name}", "on", "off", True))
            for key, value in parameters.items():
                rows.append(RecipeSetting(f"{kind}.{name}.{key}", _shown(value), "off", True))
    return sorted(rows, key=lambda row: not row.changed)


def training_facts(summary: RunSummary) -> list[tuple[str, str]]:
    """Name and value, for the list above the settings."""
    result, recipe, facts = summary.result, summary.recipe, []
    if recipe is not None:
        facts.append(("Recipe", recipe.name))
        names = ", ".join(name.replace("_", " ") for name in recipe.regularizers)
        facts.append(("Regularizers", names or "none"))
        if recipe.augment:
            names = ", ".join(name.replace("_", " ") for name in recipe.augment)
            facts.append(("Augmentation", names))
    method = result.get("method") or (recipe.model.method if recipe else None)
    trained, total = finite(result.get("trained_parameters")), finite(result.get("parameters"))
    if method:
        text = {"lora": "LoRA", "full": "all parameters"}.get(str(method), str(method))
        if trained is not None and total:
            share = words.fine_percent(trained / total)
            text += f": {words.integer(int(trained))} of {words.integer(int(total))} ({share})"
        facts.append(("Trained", text))
    rate = finite(result.get("learning_rate"))
    if rate is not None:
        searched = " (found by search)" if summary.search or _is_tuned(summary) else ""
        facts.append(("Learning rate", f"{words.short(rate)}{searched}"))
    decay, shrink = (finite(result.get(key)) for key in ("weight_decay", "weight_decay_shrink"))
    if decay is not None and shrink is not None:
        left = words.percent(math.exp(-shrink))
        text = f"{words.short(decay)}; over the planned steps it shrinks weights to {left}"
        facts.append(("Weight decay", text))
    if recipe is not None:
        facts.append(("Rows per step", str(recipe.train.batch_size)))
    steps = finite(result.get("steps_per_epoch"))
    if steps is not None:
        facts.append(("Steps per epoch", words.epoch(steps)))
    return facts


def _is_tuned(summary: RunSummary) -> bool:
    return summary.tuning is not None and "train.learning_rate" in summary.tuning.chosen


def augmentation_rows(summary: RunSummary) -> list[AugmentationRow]:
    """What each augmentation did to the rows; a dash where that means nothing."""
    rows = []
    for entry in summary.augmentation:
        found = {k: m for k, m in entry.measurements.items() if isinstance(m, Measurement)}
        reasons = [m.reason for m in entry.measurements.values() if isinstance(m, NotMeasured)]
        loss = found.get("variant_nll")
        contrast = loss.contrasts.get("originals") if loss else None
        alike, same = found.get("similarity"), found.get("unchanged_rows")
        new = found.get("new_words")
        rows.append(
            AugmentationRow(
                words.sentence_case(entry.name),
                words.percent(same.value) if same else "–",
                words.integer(int(new.value)) if new else "–",
                words.signed(contrast.difference) if contrast else "–",
                words.interval(contrast.interval, sign=True) if contrast else "",
                words.number(alike.value) if alike else "–",
                reasons[0] if reasons else "",
            )
        )
    return rows


def environment_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Flat name and value; versions of packages last."""
    rows = [
        (words.sentence_case(key), _shown(value))
        for key, value in summary.environment.items()
        if key != "versions" and value not in (None, "")
    ]
    versions = summary.environment.get("versions")
    if isinstance(versions, dict):
        rows += [(str(name), str(version)) for name, version in versions.items()]
    return rows


def measurement_rows(measurements: Iterable[Measurement]) -> list[MeasurementRow]:
    """Each measurement, and under it its differences to the controls."""
    rows = []
    for measurement in measurements:
        rows.append(_measured_row(measurement))
        is_share = measurement.unit.startswith("share of")
        unit = "difference of shares" if is_share else measurement.unit
        for control, contrast in measurement.contrasts.items():
            rows.append(
                MeasurementRow(
                    f"minus {words.model(control)[:1].lower()}{words.model(control)[1:]}",
                    words.signed(contrast.difference),
                    words.interval(contrast.interval, sign=True),
                    unit,
                    words.p_value(contrast.p_value),
                    True,
                )
            )
    return rows


def _measured_row(measurement: Measurement) -> MeasurementRow:
    over = words.count(measurement.num_units, measurement.resampled_unit)
    detail = f"{over}. {measurement.note}" if measurement.note else over
    return MeasurementRow(
        words.quantity(measurement.name),
        words.number(measurement.value),
        words.interval(measurement.interval),
        measurement.unit,
        detail,
    )


def writings(sample: RunSample) -> list[Writing]:
    """Reference, base, kept and last; where two wrote the same, one text with both labels."""
    found: dict[str, list[str]] = {}
    for label, text in (
        ("Base model", sample.base),
        ("Kept (best)", sample.best),
        ("Last checkpoint", sample.last),
        ("Without regularization", sample.fixed_epochs),
    ):
        if text is not None:
            found.setdefault(str(text).strip("\n"), []).append(label)
    columns = [Writing(" = ".join(labels), text) for text, labels in found.items()]
    label = "Training text" if sample.part == "train" else "Reference"
    return [Writing(label, sample.reference), *columns] if sample.reference else columns


def differing_settings(recipes: Sequence[Recipe | None]) -> list[tuple[str, list[str]]]:
    """Recipe fields on which runs differ: key, and each run's value."""
    tables = [{row.key: row.value for row in settings(recipe)} for recipe in recipes]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = [(key, [table.get(key, "off") for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "automatic"
    if isinstance(value, float):
        return words.short(value)
    if isinstance(value, tuple | list):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) or "none"
    return str(value) if value != "" else "none"
