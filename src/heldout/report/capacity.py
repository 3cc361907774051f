"""The page of a capacity measurement: bits memorized over bits of text, and where they end."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.files import write_text
from heldout.core.results.capacity import CapacityResult, Filled
from heldout.report import palette, words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Rule, Table, bars
from heldout.report.page import render_page

PUBLISHED = 3.6  # bits per parameter of GPT-style models after 1e6 steps, Morris et al. 2025


def write_capacity(result: CapacityResult, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_capacity(result))


def render_capacity(result: CapacityResult) -> str:
    """The page as text."""
    best = max(result.plateaus, key=lambda each: each.bits_per_parameter)
    return render_page(
        "capacity.html.j2",
        [filling(result.filled)],
        title="Capacity",
        result=result,
        best=best,
    )


def filling(filled: Sequence[Filled]) -> Chart:
    """Bits memorized over bits of text, both per parameter."""
    most = max(each.load for each in filled)
    top = max(each.memorized.value for each in filled)
    legend = [Key("All of it", "base", "dash")]
    rules = []
    if filled[0].text == "random tokens" and top > 0.4 * PUBLISHED:
        rules.append(Rule("base", y=PUBLISHED))
        top = max(top, PUBLISHED)
        if top == PUBLISHED:
            legend.append(Key("Published, 1,000,000 steps", "base", "dot"))
    reach = min(most, top * 1.15)
    marks = [Mark([0, reach], [0, reach], "base", dash="dash")]
    for index, (config, text) in enumerate(dict.fromkeys((f.config, f.text) for f in filled)):
        token, dash = palette.run_style(index)
        own = [each for each in filled if (each.config, each.text) == (config, text)]
        marks += _series(sorted(own, key=lambda each: each.load), token, dash)
        legend.append(Key(f"{config}, {text}", token, dash))
    return Chart(
        "filling",
        "How full the models are",
        Figure(
            Axis("bits of text per parameter", low=0, high=most * 1.05), Axis(low=0), marks, rules
        ),
        "Bits memorized per parameter",
        "Line chart of bits memorized over bits of text, both per parameter: "
        + "; ".join(
            f"{each.config}, {words.number(each.load, 2)}: {words.number(each.memorized.value, 2)}"
            for each in filled
        )
        + ".",
        "While a curve follows the dashed line, all of the text is memorized. Where it levels off, "
        "the model is full. Longer training lifts the plateau: it is a lower bound.",
        Table(
            ("Model", "Text", "Bits of text per parameter", "Memorized", "Interval"),
            [
                (
                    each.config,
                    each.text,
                    words.number(each.load),
                    words.number(each.memorized.value),
                    words.interval(each.memorized.interval),
                )
                for each in filled
            ],
        ),
        400,
        tuple(legend),
    )


def _series(filled: Sequence[Filled], token: str, dash: str) -> list[Mark]:
    """One model on one kind of text, with its intervals."""
    loads = [each.load for each in filled]
    bounds = [each.memorized.interval for each in filled]
    ends = [(b.low, b.high) if b and not b.is_withheld else None for b in bounds]
    return [
        bars(loads, ends, token, 1.4),
        Mark(
            loads,
            [each.memorized.value for each in filled],
            token,
            name=filled[0].config,
            hover="%{x} bits of text per parameter\n%{y} memorized",
            dash=dash,
            symbol="circle",
            size=8,
        ),
    ]
