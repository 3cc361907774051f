"""The page of a capacity measurement: bits memorized over bits of text, and where they end."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from heldout.core.files import write_text
from heldout.core.finite import finite
from heldout.core.results.capacity import CapacityResult, Filled
from heldout.report import palette, words
from heldout.report.chart import Chart, Key, blank, horizontal, line, marker, plain
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
    height = 400
    figure = blank(height)
    most = max(each.load for each in filled)
    top = max(each.memorized.value for each in filled)
    if filled[0].text == "random tokens" and top > 0.4 * PUBLISHED:
        horizontal(figure, PUBLISHED, "base")
        top = max(top, PUBLISHED)
    reach = min(most, top * 1.15)
    figure.add_trace(
        go.Scatter(
            x=[0, reach],
            y=[0, reach],
            mode="lines",
            line=line("base", dash="dash"),
            hoverinfo="skip",
        )
    )
    legend = [Key("All of it", "base", "dash")]
    if top == PUBLISHED:
        legend.append(Key("Published, 1,000,000 steps", "base", "dot"))
    series = dict.fromkeys((each.config, each.text) for each in filled)
    for index, (config, text) in enumerate(series):
        token, dash = palette.run_style(index)
        own = sorted(
            (each for each in filled if (each.config, each.text) == (config, text)),
            key=lambda each: each.load,
        )
        bounds = [each.memorized.interval for each in own]
        values = [each.memorized.value for each in own]
        ends = list(zip(bounds, values, strict=True))
        figure.add_trace(
            go.Scatter(
                x=[each.load for each in own],
                y=values,
                mode="lines+markers",
                line=line(token, dash=dash),
                marker=marker(token, size=8),
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [finite(b.high - v) for b, v in ends if b],
                    "arrayminus": [finite(v - b.low) for b, v in ends if b],
                    "color": palette.light(token),
                    "thickness": 1.4,
                },
                hovertemplate="%{x:.2f} bits of text per parameter<br>%{y:.2f} memorized<extra>"
                f"{plain(config)}</extra>",
            )
        )
        legend.append(Key(f"{config}, {text}", token, dash))
    figure.update_xaxes(title_text="bits of text per parameter", range=[0, most * 1.05])
    figure.update_yaxes(rangemode="tozero")
    return Chart(
        "filling",
        "How full the models are",
        figure,
        "Bits memorized per parameter",
        "Line chart of bits memorized over bits of text, both per parameter: "
        + "; ".join(
            f"{each.config}, {words.number(each.load, 2)}: {words.number(each.memorized.value, 2)}"
            for each in filled
        )
        + ".",
        "While a curve follows the dashed line, all of the text is memorized. Where it levels off, "
        "the model is full. Longer training lifts the plateau: it is a lower bound.",
        height,
        tuple(legend),
    )
