"""A figure as data, with all that stands around it on the page.

`figures.js` draws a `Figure` with Chart.js; the table beside it has its numbers for those who see
no picture. Text is data here too: it is drawn letter by letter, whatever it holds.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from heldout.report import words

MAX_TABLE_ROWS = 30
_FIGURES = re.compile(r"[-−+–\d.,e%\s]*")
Numbers = Sequence[float | None]  # None where there is none: a line is broken there


@dataclass(frozen=True)
class Key:
    """An entry of a legend; ``mark`` is one of palette.DASHES, or band, dots, diamond, cross."""

    label: str
    token: str
    mark: str = "solid"


@dataclass(frozen=True)
class Axis:
    """An axis; ends and ticks that are not given follow from the data and the room there is."""

    title: str = ""
    low: float | None = None
    high: float | None = None
    is_log: bool = False
    ticks: Sequence[tuple[float, str]] | None = None
    suffix: str = ""
    has_grid: bool = True


@dataclass(frozen=True)
class Mark:
    """Points, the line through them where there is a dash, and the area below where it is filled.

    ``hover`` is what the pointer shows under the name, line by line; in it ``%{x}``, ``%{y}`` and
    the ``%{name}`` of each of the details stand for the values of the point.
    """

    xs: Numbers
    ys: Numbers
    token: str
    name: str = ""
    hover: str = ""
    details: dict[str, Sequence[str]] = field(default_factory=dict)
    dash: str = ""
    width: float = 2.2
    symbol: str = ""  # circle, square, diamond, cross
    size: float = 6
    has_ring: bool = False  # sets the symbol off from lines beneath it
    fill: str = ""  # a token
    lows: Numbers = ()  # where the area ends; at zero where there are none
    is_stepped: bool = False


@dataclass(frozen=True)
class Rule:
    """A dotted line over the whole frame at one x or one y, its label above the frame."""

    token: str
    x: float | None = None
    y: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Zone:
    """A shaded part of the frame; an end that is not given is the frame's."""

    x: tuple[float, float] | None = None
    y: tuple[float, float] | None = None


@dataclass(frozen=True)
class Label:
    """Words in the frame: at a point, or above the mark at ``y`` from the left edge on."""

    y: float
    text: str
    x: float | None = None
    value: str = ""  # a second line
    is_strong: bool = False


@dataclass(frozen=True)
class Figure:
    """All that is drawn; what comes later lies above what comes before."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    rules: Sequence[Rule] = ()
    zones: Sequence[Zone] = ()
    labels: Sequence[Label] = ()

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws: no field that is as the class has it."""
        return _said(self)


@dataclass(frozen=True)
class Table:
    """The numbers of a figure; the first column names the rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def are_numbers(self) -> list[bool]:
        """Of each column whether all its cells are figures."""
        return [
            bool(self.rows) and all(_FIGURES.fullmatch(row[place]) for row in self.rows)
            for place in range(len(self.columns))
        ]


@dataclass(frozen=True)
class Chart:
    """A figure with its title, what its axes mean, a text alternative and how to read it."""

    name: str
    title: str
    figure: Figure
    unit: str
    alt: str
    reading: str
    table: Table
    height: int = 360
    legend: tuple[Key, ...] = ()


def _said(value: Any) -> Any:
    if isinstance(value, float):
        # More digits than the eye or the hover text can tell apart.
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _said(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_said(each) for each in value]
    if not isinstance(value, Axis | Mark | Rule | Zone | Label | Figure):
        return value
    given = {each.name: getattr(value, each.name) for each in fields(value)}
    defaults = {each.name: each.default for each in fields(value)}
    return {
        name: _said(each)
        for name, each in given.items()
        if each is not defaults[name] and not (isinstance(each, dict | tuple | list) and not each)
    }


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters, the middle left out: both ends of a name tell it apart."""
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def band(xs: Numbers, lows: Numbers, highs: Numbers, token: str) -> Mark:
    """A filled area between two lines."""
    return Mark(xs, highs, token, dash="solid", width=0, fill=token, lows=lows)


def bars(
    xs: Sequence[float], ends: Iterable[tuple[float, float] | None], token: str, width: float = 1.6
) -> Mark:
    """An upright line from one end to the other at each x."""
    broken_xs: list[float | None] = []
    broken_ys: list[float | None] = []
    for x, each in zip(xs, ends, strict=True):
        if each is not None:
            broken_xs += [x, x, None]
            broken_ys += [*each, None]
    return Mark(broken_xs, broken_ys, token, dash="solid", width=width)


def epoch_axis(last_epoch: float) -> Axis:
    """A label at about six epochs."""
    least = max(1, math.ceil(last_epoch / 6))
    nice = (1, 2, 3, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
    step = next((each for each in nice if each >= least), least)
    return Axis(
        "epoch",
        low=-last_epoch * 0.02,
        high=max(last_epoch, 1e-6) * 1.03,
        ticks=counted(range(0, int(last_epoch) + 1, step)) if last_epoch > 1 else None,
    )


def counted(numbers: Iterable[int]) -> list[tuple[float, str]]:
    """Ticks at whole numbers."""
    return [(number, words.integer(number)) for number in numbers]


def rows_axis(num_rows: int) -> Axis:
    """The upright axis of a figure with one labelled row below another, at 0, -1, -2 ..."""
    return Axis(low=0.72 - num_rows, high=0.78, ticks=[(0, "")], has_grid=False)


def padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """The range with a little room at both ends."""
    margin = max((high - low) * share, 1e-3)
    return low - margin, high + margin


def log_axis(title: str, values: Sequence[float]) -> Axis:
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
    return Axis(
        title,
        low=10 ** (low - margin),
        high=10 ** (high + margin),
        is_log=True,
        ticks=[
            (tick, words.compact(tick))
            for tick in ticks
            if low - margin <= math.log10(tick) <= high + margin
        ],
    )


def thinned(rows: Sequence[Any], most: int = MAX_TABLE_ROWS) -> list[Any]:
    """At most that many of the rows, evenly spaced, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def table_of(axis: str, marks: Sequence[Mark]) -> Table:
    """The named marks side by side, one row for each x; what has no value there is left blank."""
    named = [mark for mark in marks if mark.name]
    columns = [
        {x: y for x, y in zip(mark.xs, mark.ys, strict=True) if x is not None and y is not None}
        for mark in named
    ]
    places = sorted({x for column in columns for x in column})
    rows = [
        (words.compact(x), *(words.compact(column.get(x)) for column in columns))
        for x in thinned(places)
    ]
    return Table((axis, *(mark.name for mark in named)), rows, some_of(rows, places))


def some_of(rows: Sequence[Any], everything: Sequence[Any]) -> str:
    """What is said under a table that was thinned."""
    if len(rows) == len(everything):
        return ""
    return f"{words.integer(len(rows))} of {words.integer(len(everything))} rows, evenly spaced."
