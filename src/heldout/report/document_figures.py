"""Figures of documents one by one: what training did to rows it saw and to rows it never saw."""

# D documents

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from heldout.core.losses import DocumentLosses
from heldout.report import palette, words
from heldout.report.chart import Chart, Key, anchor, blank, line, marker, padded, plain, vertical

MAX_DOTS = 600  # per series: more only make the page heavy


@dataclass(frozen=True)
class BeforeAfter:
    """The same documents under the base model and under the kept checkpoint."""

    label: str
    token: str
    base: DocumentLosses
    best: DocumentLosses

    @property
    def before(self) -> np.ndarray:
        """Nats per token under the base model, (D,)."""
        return self.base.nll_nats_D / np.maximum(self.base.num_tokens_D, 1)

    @property
    def after(self) -> np.ndarray:
        """Nats per token under the kept checkpoint, (D,)."""
        return self.best.nll_nats_D / np.maximum(self.best.num_tokens_D, 1)

    @property
    def share_improved(self) -> float:
        return float((self.after < self.before).mean())


def before_after_dots(series: Sequence[BeforeAfter]) -> Chart:
    """One dot a document: loss under the base model against loss under the kept checkpoint."""
    height = 360
    figure = blank(height)
    both = np.concatenate([values for s in series for values in (s.before, s.after)])
    low, high = padded(float(both.min()), float(both.max()))
    figure.add_shape(
        type="line", x0=low, y0=low, x1=high, y1=high, layer="below", line=line("base", width=1.4)
    )
    for entry in series:
        keep_D = _thinned(len(entry.base))
        figure.add_trace(
            go.Scatter(
                x=_rounded(entry.before[keep_D]),
                y=_rounded(entry.after[keep_D]),
                mode="markers",
                marker=marker(f"{entry.token}_dots", size=7),
                customdata=[plain(str(group))[:80] for group in entry.base.groups_D[keep_D]],
                hovertemplate="%{customdata}<br>base %{x:.3f}, kept %{y:.3f}"
                f"<extra>{entry.label}</extra>",
            )
        )
    figure.update_xaxes(title_text="base model", range=[low, high], nticks=6, showgrid=True)
    figure.update_yaxes(range=[low, high])
    return Chart(
        "documents-dots",
        "Every document, before and after",
        figure,
        "Vertical: kept checkpoint; nats per token",
        "Scatter of each document's loss under the base model against the kept checkpoint. "
        + _improved_in_words(series),
        "Dots under the diagonal got better. Training dots far lower than unseen dots are "
        "memorization; both falling together is learning. " + _improved_in_words(series),
        height,
        (
            *(Key(s.label, f"{s.token}_dots", "dots") for s in series),
            Key("No change", "base"),
        ),
    )


def change_histogram(series: Sequence[BeforeAfter]) -> Chart:
    """How far the documents' losses moved, training rows against unseen ones."""
    height = 360
    figure = blank(height)
    changes = [s.after - s.before for s in series]
    low, high = np.percentile(np.concatenate(changes), [0.5, 99.5])
    fewest = min(len(change_D) for change_D in changes)
    edges = np.linspace(low, max(high, low + 1e-3), int(np.clip(2 * fewest**0.5, 6, 30)) + 1)
    for entry, change_D in zip(series, changes, strict=True):
        counts, _ = np.histogram(np.clip(change_D, edges[0], edges[-1]), edges)
        share = 100 * counts / len(change_D)
        figure.add_trace(
            go.Scatter(
                x=_rounded(np.repeat(edges, 2)),
                y=[0.0, *_rounded(np.repeat(share, 2)), 0.0],
                mode="lines",
                line=line(entry.token, width=1.8),
                fill="tozeroy",
                fillcolor=palette.light(f"{entry.token}_band"),
                hovertemplate="%{x:.3f} nats/token: %{y:.1f} %" + f"<extra>{entry.label}</extra>",
            )
        )
    start, end = padded(min(edges[0], 0.0), max(edges[-1], 0.0), 0.02)
    vertical(figure, 0, "base", "no change", anchor(0, start, end))
    figure.update_xaxes(title_text="kept minus base", nticks=6, range=[start, end])
    figure.update_yaxes(rangemode="tozero", ticksuffix=" %")
    return Chart(
        "documents-change",
        "How far they moved",
        figure,
        "Share of documents by change in nats per token; left of zero is better",
        "Distribution of the change in loss per document. " + _improved_in_words(series),
        "The nearer the two shapes, the more of what was learned carries over to unseen text. "
        "The outermost bars hold all that lies beyond.",
        height,
        tuple(Key(s.label, s.token, "solid") for s in series),
    )


def _improved_in_words(series: Sequence[BeforeAfter]) -> str:
    return " ".join(f"{s.label}: {words.percent(s.share_improved)} improved." for s in series)


def _thinned(num: int) -> np.ndarray:
    if num <= MAX_DOTS:
        return np.arange(num)
    return np.sort(np.random.default_rng(0).choice(num, MAX_DOTS, replace=False))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
