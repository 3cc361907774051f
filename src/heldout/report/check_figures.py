"""The figures of a check: where the leaks are, and how long the rows."""

from collections import Counter
from itertools import pairwise

from heldout.core.results.check import CheckResult, Lengths
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Table, log_axis, thinned

SHOWN_MARKS = 400  # of one kind on the map
KINDS = {
    "exact": "Exact",
    "near": "Nearly the same",
    "span": "A long span in common",
    "prompt": "One prompt",
    "answer": "One long answer",
    "paraphrase": "In other words",
}
_LOOKS = {
    "exact": ("red", "square"),
    "near": ("heldout", "diamond"),
    "span": ("train", "circle"),
    "prompt": ("base", "circle"),
    "answer": ("base", "square"),
    "paraphrase": ("train", "diamond"),
}


def leak_map(result: CheckResult) -> Chart:
    """Where in the training rows and where in the held-out rows the leaks are, counted from 1."""
    rows, heldout = result.rows_by_part["train"], result.rows_by_part["heldout"]
    marks, legend = [], []
    for kind, places in result.leak_map.items():
        token, symbol = _LOOKS[kind]
        marks.append(
            Mark(
                [_row(place[0], rows) for place in thinned(places, SHOWN_MARKS)],
                [_row(place[1], heldout) for place in thinned(places, SHOWN_MARKS)],
                token,
                name=KINDS[kind],
                hover="training row %{x}, held-out row %{y}",
                symbol=symbol,
                size=8,
            )
        )
        mark = "diamond" if symbol == "diamond" else "dots"
        legend.append(Key(f"{KINDS[kind]} ({words.integer(len(places))})", token, mark))
    total = sum(len(places) for places in result.leak_map.values())
    return Chart(
        "leak-map",
        "Leak map",
        Figure(
            Axis("training row", low=1 - 0.02 * rows, high=1.02 * rows),
            Axis("held-out row", low=1 - 0.02 * heldout, high=1.02 * heldout),
            marks,
        ),
        "Each mark is a training row and a held-out row that say the same",
        f"Map of {words.count(total, 'leak')} by their places in the training and held-out rows.",
        "A diagonal line is a file that stands in both, a horizontal one a held-out row that "
        "training repeats, a cloud a random split of data with duplicates.",
        _leak_table(result),
        400,
        tuple(legend),
    )


def _row(place: float, num_rows: int) -> int:
    """The row at a place between 0 and 1, counted from 1."""
    return round(place * num_rows) + 1


def _leak_table(result: CheckResult) -> Table:
    """How many leaks lie in which fifth of the training rows."""
    rows = result.rows_by_part["train"]
    ends = [round(rows * fifth / 5) for fifth in range(6)]
    spans = [f"{low + 1:,} to {high:,}" for low, high in pairwise(ends)]
    found_rows = []
    for kind, places in result.leak_map.items():
        found = Counter(min(int(5 * place[0]), 4) for place in places)
        counts = (words.integer(found[fifth]) for fifth in range(5))
        found_rows.append((KINDS[kind], *counts, words.integer(len(places))))
    return Table(("Training row", *spans, "all"), found_rows)


def length_chart(lengths: Lengths) -> Chart:
    """How many rows are how long."""
    bins = [(max(low, 1), high, num) for low, high, num in lengths.histogram]
    ends = [end for low, high, _ in bins for end in (low, high)]
    middle, high = lengths.quantiles["0.5"], lengths.quantiles["0.95"]
    return Chart(
        f"lengths-{lengths.unit}",
        f"Length of the training rows in {lengths.unit}",
        Figure(
            log_axis(f"{lengths.unit} (logarithmic)", ends),
            Axis(low=0),
            [
                Mark(
                    ends,
                    [num for *_, num in bins for _ in range(2)],
                    "train",
                    hover="%{x}: %{y} rows",
                    dash="solid",
                    width=1.6,
                    fill="train_band",
                )
            ],
        ),
        "Rows",
        f"Histogram of row lengths in {lengths.unit}; the median is {middle:,.0f}.",
        f"Half of the rows have {middle:,.0f} {lengths.unit} or fewer, 95 of 100 have {high:,.0f} "
        "or fewer. A spike at the right end means that rows were cut off.",
        Table(
            ("from", "to", "Rows"),
            [(f"{low:,.0f}", f"{high:,.0f}", words.integer(num)) for low, high, num in bins if num],
        ),
        280,
    )
