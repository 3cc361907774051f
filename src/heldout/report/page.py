"""One run folder to one HTML file that needs nothing else: no network, no font, no other file."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from heldout.core.files import write_text
from heldout.core.run import Run
from heldout.report import comparison, how_trained, palette, sections, single, words
from heldout.report.chart import Chart
from heldout.report.quoted import clipped, language_attribute
from heldout.report.redacted import redacted
from heldout.report.summary import RunSummary, summarize
from heldout.report.tiles import run_tiles
from heldout.report.translated import translated_figure, translated_page


@dataclass(frozen=True)
class Section:
    """Anchor and name of a section that has something to say."""

    anchor: str
    title: str


def write_run_report(run: Run) -> Path:
    """Write ``report.html`` into the run, from what lies in the folder; returns its path."""
    run.write_text("report.html", render_report([run]))
    return run.path("report.html")


def write_redacted_report(run: Run, path: Path) -> Path:
    """Write the run's page without rows, samples, names and paths; whole or not at all."""
    return write_text(path, _render_single(redacted(run, summarize(run))))


def write_comparison(runs: Sequence[Run], path: Path) -> Path:
    """Write one page with several runs side by side; whole or not at all."""
    return write_text(path, render_report(list(runs)))


def render_report(runs: list[Run]) -> str:
    """The page of one run, or of several side by side."""
    if not runs:
        raise ValueError("A report needs at least one run.")
    summaries = [summarize(run) for run in runs]
    if len(runs) == 1:
        return _render_single(summaries[0])
    return _render_comparison(runs, summaries)


def _render_single(summary: RunSummary) -> str:
    groups = {
        "curves": single.curve_charts(summary),
        "documents": single.document_charts(summary),
        "gap": single.gap_charts(summary),
        "search": single.search_charts(summary),
    }
    parts = sections.part_rows(summary)
    measured = sections.measurement_rows(summary.measured.values())
    has_test = not summary.is_cross_validated and any(row.name == "Sealed test" for row in parts)
    training = how_trained.training_facts(summary)
    shown = [
        ("causes", "Why", summary.verdict is not None and bool(summary.verdict.causes)),
        ("remedies", "What to change", bool(summary.remedies)),
        ("curves", "Training", bool(groups["curves"])),
        ("documents", "Documents", bool(groups["documents"])),
        ("gap", "Generalization", bool(groups["gap"])),
        ("samples", "Samples", bool(summary.samples)),
        ("certificate", "Sealed test", has_test or summary.is_cross_validated),
        ("recipe", "How it was trained", bool(training)),
        ("numbers", "All numbers", bool(measured or summary.not_measured)),
    ]
    return render_page(
        "report.html.j2",
        [chart for charts in groups.values() for chart in charts],
        title=summary.name,
        summary=summary,
        groups=groups,
        nav=[Section(anchor, title) for anchor, title, present in shown if present],
        headline=sections.split_sentences(sections.run_headline(summary)),
        notice=sections.notice(summary),
        tiles=run_tiles(summary),
        verdicts=sections.verdict_cards(summary.verdict),
        samples=sections.shown_samples(summary.samples),
        parts=parts,
        seed_sentence=sections.seed_sentence(summary),
        looks=sections.looks_sentence(summary),
        dropped=sections.dropped_rows(summary),
        settings=how_trained.settings(summary.recipe),
        training=training,
        augmentation=sections.augmentation_rows(summary),
        environment=how_trained.environment_rows(summary),
        measured=measured,
        not_measured=summary.not_measured,
        causes=summary.verdict.causes if summary.verdict else (),
        remedies=sections.remedies(summary.remedies),
    )


def _render_comparison(runs: Sequence[Run], summaries: Sequence[RunSummary]) -> str:
    compared = comparison.compared_runs(runs, summaries)
    return render_page(
        "comparison.html.j2",
        comparison.charts(compared),
        title=f"{len(runs)} runs side by side",
        runs=compared,
        columns=comparison.COLUMNS,
        caution=comparison.caution(compared),
        differing=how_trained.differing_settings([summary.recipe for summary in summaries]),
    )


def render_page(template: str, charts: Sequence[Chart], **values: Any) -> str:
    """A template filled in, with its figures and the scripts that draw them inside."""
    scripts = [chart_library(), _template("figures.js")] if charts else []
    page = (
        _environment()
        .get_template(template)
        .render(
            charts=charts,
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts),
            figures=inert_json(_drawn(charts)) if charts else "",
            light_variables=Markup(palette.css_variables(0)),
            dark_variables=Markup(palette.css_variables(1)),
            **values,
        )
    )
    return translated_page(page)


def inert_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it can end or open an element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _drawn(charts: Sequence[Chart]) -> dict[str, Any]:
    """What the page's script draws, and the colors to draw it in."""
    return {
        "themes": {"light": palette.colors(0), "dark": palette.colors(1)},
        "charts": {chart.name: translated_figure(chart.figure.to_json()) for chart in charts},
    }


@cache
def chart_library() -> str:
    """Chart.js, as it stands in a page: without the address of a file that only it needs."""
    path = resources.files("heldout.assets") / "chart_js" / "chart.umd.min.js"
    source = path.read_text(encoding="utf-8").partition("\n//# sourceMappingURL")[0]
    assert "</script" not in source, "cannot be inlined as it stands"
    assert "\r" not in source, "its hash would differ: browsers read a line end as one character"
    return source


def _policy(scripts: Sequence[str]) -> str:
    """Only the page's own scripts run, and nothing is fetched, whatever else a page may hold."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


@cache
def _template(name: str) -> str:
    path = resources.files("heldout.report") / "templates" / name
    return path.read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("heldout.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        date=words.date,
        last_name=words.last_name,
        sentence_case=words.sentence_case,
        quantity=words.quantity,
        number=words.number,
        epoch=words.epoch,
    )
    environment.globals.update(words=words, language_attribute=language_attribute, clipped=clipped)
    return environment
