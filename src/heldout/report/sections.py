"""What the report says in words and tables, from a run's summary; None or empty means silence."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.diagnosis import Remedy
from heldout.core.run_files import RunSample
from heldout.core.verdict import VERDICTS, Verdicts
from heldout.report import words
from heldout.report.quoted import MOST_SAMPLES, clipped, ending, shown_of_each
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
    if summary.is_redacted:
        parts.append(
            "This page can be sent to others: rows, samples, names and paths are left out."
        )
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


def shown_samples(samples: Sequence[RunSample]) -> list[tuple[RunSample, list[Writing]]]:
    """The first ones with what was written, each text as long as the page has room for."""
    found = [(sample, writings(sample)) for sample in samples[:MOST_SAMPLES]]
    most = shown_of_each(sum(1 + len(written) for _, written in found))
    return [
        (
            replace(sample, prompt=ending(sample.prompt, most)),
            [replace(each, text=clipped(each.text, most)) for each in written],
        )
        for sample, written in found
    ]


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
