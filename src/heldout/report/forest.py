"""Estimates with their intervals, one below another."""

from collections.abc import Sequence
from dataclasses import dataclass

from heldout.core.measurement import TOO_FEW, Interval
from heldout.report import words
from heldout.report.chart import (
    Axis,
    Chart,
    Figure,
    Key,
    Label,
    Mark,
    Rule,
    Table,
    Zone,
    padded,
    rows_axis,
)

MAX_TOLD = 12  # rows in the text alternative; the table has all


@dataclass(frozen=True)
class ForestRow:
    """An estimate with its interval; the one that matters most is ``strong``."""

    label: str
    value: float
    interval: Interval | None
    strong: bool = False
    token: str = "ink"


def forest(
    name: str,
    title: str,
    unit: str,
    reading: str,
    rows: Sequence[ForestRow],
    *,
    null: str = "",
    min_effect: float = 0.0,
) -> Chart:
    """Estimates with intervals below one another; ``null`` names zero and the zone around it."""
    is_signed = bool(null)
    ends = [end for row in rows for end in _ends(row)]
    ends += [-min_effect, min_effect] if null else []
    low, high = padded(min(ends), max(ends), 0.08)
    marks, labels = [], []
    for place, row in enumerate(rows):
        value = words.signed(row.value) if is_signed else words.number(row.value)
        limits = f" {shown}" if (shown := _limits(row.interval, is_signed)) else ""
        labels.append(Label(-place, row.label, value=f"{value}{limits}", is_strong=row.strong))
        if row.interval is not None and not row.interval.is_withheld:
            marks.append(
                Mark(
                    [row.interval.low, row.interval.high],
                    [-place, -place],
                    row.token,
                    dash="solid",
                    width=3.2 if row.strong else 2,
                )
            )
        marks.append(
            Mark(
                [row.value],
                [-place],
                row.token,
                symbol="square",
                size=13 if row.strong else 10,
            )
        )
    has_zone = bool(null and min_effect)
    return Chart(
        name,
        title,
        Figure(
            Axis(low=low, high=high),
            rows_axis(len(rows)),
            marks,
            [Rule("base", x=0, label=null)] if null else [],
            [Zone(x=(-min_effect, min_effect))] if has_zone else [],
            labels,
        ),
        unit,
        f"{title}. {_rows_in_words(rows, is_signed)}",
        reading,
        _forest_table(rows, is_signed),
        52 + 62 * len(rows),
        (Key("Too small to matter", "zone", "band"),) if has_zone else (),
    )


def _limits(bounds: Interval | None, is_signed: bool) -> str:
    """The interval in brackets, or that there are too few groups for one."""
    if bounds is None:
        return ""
    if bounds.is_withheld:
        return f"({TOO_FEW})"
    return f"[{words.interval(bounds, sign=is_signed).replace(' to ', ', ')}]"


def _forest_table(rows: Sequence[ForestRow], is_signed: bool) -> Table:
    show = words.signed if is_signed else words.number
    return Table(
        ("", "Value", "Interval"),
        [
            (row.label, show(row.value), words.interval(row.interval, sign=is_signed))
            for row in rows
        ],
    )


def _ends(row: ForestRow) -> tuple[float, ...]:
    if row.interval is None or row.interval.is_withheld:
        return (row.value,)
    return (row.interval.low, row.value, row.interval.high)


def _rows_in_words(rows: Sequence[ForestRow], is_signed: bool) -> str:
    told = "; ".join(_row_in_words(row, is_signed) for row in rows[:MAX_TOLD])
    rest = len(rows) - MAX_TOLD
    return f"{told}; {words.integer(rest)} more in the table." if rest > 0 else f"{told}."


def _row_in_words(row: ForestRow, is_signed: bool) -> str:
    show = words.signed if is_signed else words.number
    bounds = f" ({words.interval(row.interval, sign=is_signed)})" if row.interval else ""
    return f"{row.label}: {show(row.value)}{bounds}"
