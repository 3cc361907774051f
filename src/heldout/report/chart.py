"""A figure with all that stands around it on the page, and the layout that all figures share."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from heldout.report import palette

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CLEAR = "rgba(0,0,0,0)"


@dataclass(frozen=True)
class Key:
    """One entry of a legend; ``mark`` is a dash of palette.DASHES, or band, dots, diamond, tick."""

    label: str
    token: str
    mark: str = "solid"


@dataclass(frozen=True)
class Chart:
    """A figure with its title, what its axes mean, a text alternative and how to read it."""

    name: str
    title: str
    figure: go.Figure
    unit: str
    alt: str
    reading: str
    height: int = 360
    legend: tuple[Key, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        figure = self.figure.to_plotly_json()
        return {"data": figure["data"], "layout": figure["layout"]}


def plain(text: str) -> str:
    """Untrusted text as plotly shows it letter by letter: plotly reads tags, and ``%{`` as a field.

    Plotly turns the entities back into characters after it has looked for tags.
    """
    return html.escape(" ".join(text.split())).replace("%{", "%\u200b{")


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters, the middle left out: both ends of a name tell it apart."""
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def blank(height: int) -> go.Figure:
    """An empty figure in the page's type, without legend or title: the page has these as text."""
    figure = go.Figure(layout=go.Layout(template=go.layout.Template()))
    figure.update_layout(
        height=height,
        autosize=True,
        showlegend=False,
        dragmode=False,
        hovermode="closest",
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        margin={"l": 12, "r": 14, "t": 22, "b": 12},
        font={"family": FONT, "size": 12, "color": palette.light("muted")},
        hoverlabel={
            "bgcolor": palette.light("surface"),
            "bordercolor": palette.light("line"),
            "font": {"family": FONT, "size": 13, "color": palette.light("ink")},
            "align": "left",
        },
    )
    axis = {
        "automargin": True,
        "showline": False,
        "zeroline": False,
        "gridcolor": palette.light("faint"),
        "gridwidth": 1,
        "tickcolor": palette.light("line"),
        "tickfont": {"color": palette.light("muted")},
        "title": {"font": {"color": palette.light("muted")}, "standoff": 8},
        "tickangle": 0,
    }
    figure.update_xaxes(**axis, showgrid=False, ticks="outside", ticklen=4)
    figure.update_yaxes(**axis, showgrid=True, ticks="", nticks=6)
    return figure


def line(token: str, *, width: float = 2.2, dash: str = "solid") -> dict[str, Any]:
    return {"color": palette.light(token), "width": width, "dash": dash}


def marker(token: str, *, size: float = 6, symbol: str = "circle", ring: bool = False) -> dict:
    """``ring`` sets the mark off from lines beneath it."""
    outline = {"color": palette.light("surface"), "width": 2 if ring else 0}
    return {"color": palette.light(token), "size": size, "symbol": symbol, "line": outline}


def epoch_axis(figure: go.Figure, last_epoch: float) -> None:
    """A faint line at each epoch while they can be told apart, a label at about six of them."""
    step = max(1, math.ceil(last_epoch / 6))
    for nice in (1, 2, 3, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000):
        if nice >= step:
            step = nice
            break
    figure.update_xaxes(
        title_text="epoch",
        tick0=0,
        dtick=step if last_epoch > 1 else None,
        showgrid=True,
        minor={
            "tick0": 0,
            "dtick": 1 if last_epoch <= 30 else step,
            "showgrid": True,
            "gridcolor": palette.light("faint"),
        },
        range=[-last_epoch * 0.02, max(last_epoch, 1e-6) * 1.03],
    )


def band(
    xs: Sequence[float], lows: Sequence[float | None], highs: Sequence[float | None], token: str
) -> go.Scatter:
    """A filled area between two lines."""
    return go.Scatter(
        x=[*xs, *reversed(xs)],
        y=[*highs, *reversed(lows)],
        fill="toself",
        fillcolor=palette.light(token),
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
    )


def vertical(
    figure: go.Figure, x: float, token: str, label: str, anchor: Literal["left", "center", "right"]
) -> None:
    """A dotted line over the whole height, named above the frame where no curve can be."""
    figure.add_shape(
        type="line",
        x0=x,
        x1=x,
        y0=0,
        y1=1,
        yref="paper",
        layer="below",
        line=line(token, width=1.4, dash="dot"),
    )
    figure.add_annotation(
        x=x,
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor=anchor,
        text=label,
        showarrow=False,
        font={"color": palette.light(token), "size": 12},
    )


def horizontal(figure: go.Figure, y: float, token: str) -> None:
    figure.add_shape(
        type="line",
        x0=0,
        x1=1,
        xref="paper",
        y0=y,
        y1=y,
        layer="below",
        line=line(token, width=1.4, dash="dot"),
    )


def anchor(x: float, low: float, high: float) -> Literal["left", "center", "right"]:
    """Which end of a label stands at ``x``, so that the label stays within the frame."""
    place = (x - low) / (high - low)
    return "left" if place < 0.3 else "right" if place > 0.7 else "center"


def padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """The range with a little room at both ends."""
    margin = max((high - low) * share, 1e-3)
    return low - margin, high + margin


def add_label(figure: go.Figure, place: float, text: str) -> None:
    """Words above the mark at ``place`` and not beside it: on a phone the axis keeps the width."""
    figure.add_annotation(
        text=text,
        x=0,
        xref="paper",
        xanchor="left",
        align="left",
        y=place,
        yanchor="bottom",
        yshift=7,
        showarrow=False,
        font={"color": palette.light("ink"), "size": 12},
        bgcolor=palette.light("surface"),
        borderpad=1,
    )


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with a label at few powers of ten."""
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.04 * (high - low), 0.02)
    span = high - low
    if span < 1.2:
        ticks = [
            m * 10.0**power
            for power in range(math.floor(low) - 1, math.ceil(high) + 1)
            for m in ((1, 2, 5) if span > 0.5 else (1, 1.5, 2, 3, 5, 7))
        ]
    else:
        every = math.ceil(span / 5)
        ticks = [10.0**power for power in range(math.floor(low), math.ceil(high) + 1, every)]
    ticks = [tick for tick in ticks if low - margin <= math.log10(tick) <= high + margin]
    return {
        "type": "log",
        "range": [low - margin, high + margin],
        "showgrid": True,
        "tickvals": ticks,
        "ticktext": [_tick(tick) for tick in ticks],
    }


def _tick(value: float) -> str:
    if 1e-3 < value < 1e5:
        return f"{value:,.4g}"
    mantissa, power = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}"
