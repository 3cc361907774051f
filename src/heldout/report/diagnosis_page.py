"""What ``heldout diagnose`` found as one HTML page: verdict, causes, remedies, evidence."""

from dataclasses import dataclass, replace
from pathlib import Path

from heldout.core.files import write_text
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.diagnosis import Diagnosis, SideBySide
from heldout.core.run_files import HistoryEntry
from heldout.report import sections, words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Table
from heldout.report.figures import loss_curves
from heldout.report.forest import ForestRow, forest
from heldout.report.page import Section, render_page
from heldout.report.quoted import clipped, ending, shown_of_each
from heldout.report.tiles import Tile

SHOWN_MEMORIZED = 30
# Symptoms of generation, where more is worse, and what a reader calls them.
SYMPTOMS = (
    ("seq_rep_4_best", "Repeats itself (4-grams)"),
    ("self_bleu_best", "Answers resemble each other"),
    ("template_similarity_best", "The same text for different prompts"),
    ("fragment_coverage_best", "Copied from training texts"),
    ("prompt_sensitivity_best", "Moved by harmless changes of the prompt"),
    ("noise_rate_best", "Misspellings of the training data"),
)
MEMORY = (
    ("recital_best", "Rows recited"),
    ("extraction_best", "Rows extracted"),
    ("discoverable_best", "Rows found in 100 samples"),
)


@dataclass(frozen=True)
class MarkedText:
    """Text before, inside and after what is copied."""

    before: str
    shared: str
    after: str


@dataclass(frozen=True)
class MarkedSample:
    """One prompt with what the document, the base and the judged model go on with."""

    sample: SideBySide
    best: MarkedText


def write_diagnosis_page(result: Diagnosis, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_diagnosis(result))


def render_diagnosis(result: Diagnosis) -> str:
    """The page as text."""
    measured = {m.name: m for m in result.measurements if isinstance(m, Measurement)}
    groups = {
        "curves": curve_charts(result),
        "memory": memory_charts(measured),
        "confidence": reliability_charts(result),
        "symptoms": symptom_charts(measured),
    }
    most = shown_of_each(2 * len(result.samples))
    samples = [
        MarkedSample(
            replace(
                sample,
                prompt=ending(sample.prompt, most),
                reference=clipped(sample.reference.lstrip(), most),
            ),
            marked_text(sample.best, sample.copied),
        )
        for sample in result.samples
    ]
    found = [check for check in result.facts.checks if check.status != "absent"]
    present = [
        ("causes", "Why", bool(result.verdict.causes)),
        ("remedies", "What to change", bool(result.remedies)),
        ("memory", "Learned by heart", bool(groups["memory"] or result.recited)),
        ("curves", "Training", bool(groups["curves"])),
        ("symptoms", "Generation", bool(groups["symptoms"] or samples)),
        ("confidence", "Confidence", bool(groups["confidence"])),
        ("setup", "Set-up", bool(result.facts.checks)),
        ("numbers", "All numbers", bool(result.measurements)),
    ]
    return render_page(
        "diagnosis.html.j2",
        [chart for charts in groups.values() for chart in charts],
        title=f"Diagnosis of {words.last_name(result.target)}",
        result=result,
        headline=sections.split_sentences(result.verdict.headline),
        nav=[Section(anchor, title) for anchor, title, there in present if there],
        tiles=diagnosis_tiles(result, measured),
        verdicts=sections.verdict_cards(result.verdict),
        causes=result.verdict.causes,
        remedies=sections.remedies(result.remedies),
        groups=groups,
        memorized=result.recited[:SHOWN_MEMORIZED],
        samples=samples,
        checks=sorted(result.facts.checks, key=lambda check: check not in found),
        facts=known_facts(result),
        measured=sections.measurement_rows(measured.values()),
        not_measured=[m for m in result.measurements if isinstance(m, NotMeasured)],
        seed_sentence="Intervals say how figures would vary over other documents, for this one "
        "model; they do not cover what another training seed would give.",
    )


def diagnosis_tiles(result: Diagnosis, measured: dict[str, Measurement]) -> list[Tile]:
    """The figures that most readers want first."""
    found = []
    for name, control, label in (
        ("test_nll_best", "base", "Loss on unseen text, against base"),
        ("generalization_gap_best", "base", "Gap beyond the base model's"),
        ("recital_best", "heldout", "Training rows recited beyond held-out rows"),
        ("ece_best", "base", "Calibration error, against base"),
    ):
        contrast = measured[name].contrasts.get(control) if name in measured else None
        if contrast is None:
            continue
        unit = measured[name].unit
        is_share = unit.startswith("share") or unit == "probability"
        value = (
            words.signed_percent(contrast.difference)
            if is_share
            else f"{words.signed(contrast.difference)} {unit}"
        )
        bounds = contrast.interval
        shown = words.with_level(bounds, sign=True)
        if is_share and not bounds.is_withheld:
            shown = (
                f"{words.level(bounds)} interval {words.signed_percent(bounds.low)} to "
                f"{words.signed_percent(bounds.high)}"
            )
        found.append(Tile(label, value, (shown,)))
    return found


def curve_charts(result: Diagnosis) -> list[Chart]:
    """Losses over epochs, where a log or checkpoints tell them."""
    entries = [
        HistoryEntry(
            point.step, point.epoch, validation_nll=point.validation_nll, train_nll=point.train_nll
        )
        for point in result.facts.history
    ]
    seen = [entry for entry in entries if entry.validation_nll is not None]
    if len(entries) < 2:
        return []
    kept = min(seen, key=lambda entry: entry.validation_nll or 0.0) if seen else None
    return [loss_curves(entries, [], kept)]


def memory_charts(measured: dict[str, Measurement]) -> list[Chart]:
    """Shares of the training rows beyond held-out rows, and membership inference."""
    charts = []
    rows = [
        ForestRow(label, contrast.difference, contrast.interval, index == 0, "heldout")
        for index, (name, label) in enumerate(MEMORY)
        if name in measured and (contrast := measured[name].contrasts.get("heldout")) is not None
    ]
    if rows:
        charts.append(
            forest(
                "memory",
                "Learned by heart",
                "Share of training rows minus share of held-out rows, with 95 % interval",
                "Held-out rows cannot have been learned by heart; what they share with training "
                "rows is boilerplate. What exceeds them is memory." + _lengths(measured),
                rows,
                null="as held-out rows",
            )
        )
    attacks = [
        ForestRow(label, measured[name].value, measured[name].interval, False, "ink")
        for name, label in (
            ("membership_auc_loss_best", "Loss"),
            ("membership_auc_zlib_best", "Mean loss over compressed size"),
            ("membership_auc_zlib_total_best", "Whole loss over compressed size"),
            ("membership_auc_min_k_best", "Min-K %"),
            ("membership_auc_min_k_plus_best", "Min-K %++"),
            ("membership_auc_reference_best", "Loss against the base model"),
        )
        if name in measured
    ]
    if attacks:
        charts.append(
            forest(
                "membership",
                "Can membership be inferred?",
                "Area under the curve with 95 % interval; 0.5 is chance, 1 certainty",
                "How well a training row is told from an unseen one by the model alone. The base "
                "model's own figure stands in the table: rows may differ by themselves.",
                attacks,
            )
        )
    return charts


def symptom_charts(measured: dict[str, Measurement]) -> list[Chart]:
    """Differences to the base model, one line a symptom."""
    rows = [
        ForestRow(label, contrast.difference, contrast.interval, False, "ink")
        for name, label in SYMPTOMS
        if name in measured and (contrast := measured[name].contrasts.get("base")) is not None
    ]
    if not rows:
        return []
    return [
        forest(
            "symptoms",
            "Symptoms in generated text",
            "Judged model minus base model with 95 % interval; right of zero is worse",
            "Each figure is compared with the base model on the same prompts: text that repeats "
            "itself is a mark of underfitted models too.",
            rows,
            null="as the base model",
        )
    ]


def reliability_charts(result: Diagnosis) -> list[Chart]:
    """How often the likeliest token is right, by how sure the model is of it."""
    names = {"base": ("Base model", "base", "dash"), "best": ("Judged model", "kept", "solid")}
    drawn = {name: result.reliability[name] for name in names if result.reliability.get(name)}
    if not drawn:
        return []
    marks = [Mark([0, 100], [0, 100], "line", dash="solid", width=1.4)]
    for name, points in drawn.items():
        label, token, dash = names[name]
        marks.append(
            Mark(
                [100 * point[0] for point in points],
                [100 * point[1] for point in points],
                token,
                name=label,
                hover="sure %{x} %, right %{y} %, %{tokens} tokens",
                details={"tokens": [words.integer(int(point[2])) for point in points]},
                dash=dash,
                symbol="circle",
                size=7,
            )
        )
    percent = Axis("how sure the model is of its likeliest token", low=0, high=100, suffix=" %")
    worst = max(abs(right - sure) for sure, right, _ in drawn.get("best", drawn[min(drawn)]))
    return [
        Chart(
            "reliability",
            "Does it know what it knows?",
            Figure(percent, replace(percent, title=""), marks),
            "Share of held-out tokens where the likeliest token was right",
            f"Reliability diagram; the largest distance to the diagonal is {worst:.0%}.",
            "On the diagonal, the model is right as often as it is sure. Below it, the model "
            "is overconfident, as memorizing makes it.",
            Table(
                ("", "Sure", "Right", "Tokens"),
                [
                    (
                        names[name][0],
                        words.percent(sure),
                        words.percent(right),
                        words.integer(int(tokens)),
                    )
                    for name, points in drawn.items()
                    for sure, right, tokens in points
                ],
            ),
            legend=tuple(Key(names[name][0], names[name][1], names[name][2]) for name in drawn),
        )
    ]


def _lengths(measured: dict[str, Measurement]) -> str:
    """What counts as recited and as extracted, of those that were measured."""
    names = (("recital_best", "Recited"), ("extraction_best", "Extracted"))
    told = ((name, measured[key].note) for key, name in names if key in measured)
    return "".join(f" {name}: {note}." for name, note in told if note)


def marked_text(text: str, copied: tuple[int, int] | None) -> MarkedText:
    """The text cut around what is copied, without the space that joined it to the prompt."""
    start, stop = copied or (len(text), len(text))
    before, shared = text[:start].lstrip(), text[start:stop]
    return MarkedText(before, shared if before else shared.lstrip(), text[stop:])


def known_facts(result: Diagnosis) -> list[tuple[str, str]]:
    """What is known of the training, for a table."""
    facts = result.facts
    rows: list[tuple[str, str | None]] = [
        ("Goal", facts.goal),
        ("Kind of run", result.kind.get("name") or None),
        ("Training rows", _integer(facts.num_train_rows)),
        ("Scored training tokens", _integer(facts.num_train_tokens)),
        ("Held-out groups measured", _integer(facts.num_heldout_groups)),
        ("Parameters", _integer(facts.parameters)),
        ("Trained parameters", _integer(facts.trained_parameters)),
        ("Epochs", words.epoch(facts.epochs) if facts.epochs is not None else None),
        ("Learning rate", words.short(facts.learning_rate) if facts.learning_rate else None),
        ("Weight decay", words.short(facts.weight_decay) if facts.weight_decay else None),
        ("Regularizers", ", ".join(name.replace("_", " ") for name in facts.regularizers) or None),
        ("Training rows that repeat others", _percent(facts.duplicate_share)),
        ("Held-out rows found in training", _percent(facts.leak_share)),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _integer(value: int | None) -> str | None:
    return None if value is None else words.integer(value)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}\u00a0%"
