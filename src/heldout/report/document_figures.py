"""Figures of documents one by one: what training did to rows it saw and to rows it never saw."""

# D documents

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Rule, Table, padded

MAX_DOTS = 400  # per series: more only make the page heavy


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
    both = np.concatenate([values for s in series for values in (s.before, s.after)])
    low, high = padded(float(both.min()), float(both.max()))
    marks = [Mark([low, high], [low, high], "base", dash="solid", width=1.4)]
    for entry in series:
        keep_D = _thinned(len(entry.base))
        marks.append(
            Mark(
                entry.before[keep_D].tolist(),
                entry.after[keep_D].tolist(),
                f"{entry.token}_dots",
                name=entry.label,
                hover="%{document}\nbase %{x}, kept %{y}",
                details={"document": [str(group)[:80] for group in entry.base.groups_D[keep_D]]},
                symbol="circle",
                size=7,
            )
        )
    return Chart(
        "documents-dots",
        "Every document, before and after",
        Figure(Axis("base model", low=low, high=high), Axis(low=low, high=high), marks),
        "Vertical: kept checkpoint; nats per token",
        "Scatter of each document's loss under the base model against the kept checkpoint. "
        + _improved_in_words(series),
        "Dots under the diagonal got better. Training dots far lower than unseen dots are "
        "memorization; both falling together is learning. " + _improved_in_words(series),
        _quantiles(series),
        360,
        (
            *(Key(s.label, f"{s.token}_dots", "dots") for s in series),
            Key("No change", "base"),
        ),
    )


def _quantiles(series: Sequence[BeforeAfter]) -> Table:
    shown = (("lowest", 0), ("10 %", 10), ("median", 50), ("90 %", 90), ("highest", 100))
    rows = []
    for entry in series:
        for model, values in (("base model", entry.before), ("kept", entry.after)):
            found = (words.number(float(np.percentile(values, place))) for _, place in shown)
            rows.append((f"{entry.label}, {model}", words.integer(len(values)), *found))
    return Table(("", "Documents", *(name for name, _ in shown)), rows)


def change_histogram(series: Sequence[BeforeAfter]) -> Chart:
    """How far the documents' losses moved, training rows against unseen ones."""
    changes = [s.after - s.before for s in series]
    low, high = np.percentile(np.concatenate(changes), [0.5, 99.5])
    fewest = min(len(change_D) for change_D in changes)
    edges = np.linspace(low, max(high, low + 1e-3), int(np.clip(2 * fewest**0.5, 6, 30)) + 1)
    marks, shares = [], []
    for entry, change_D in zip(series, changes, strict=True):
        counts, _ = np.histogram(np.clip(change_D, edges[0], edges[-1]), edges)
        shares.append(100 * counts / len(change_D))
        marks.append(
            Mark(
                np.repeat(edges, 2).tolist(),
                [0.0, *np.repeat(shares[-1], 2).tolist(), 0.0],
                entry.token,
                name=entry.label,
                hover="%{x} nats/token: %{y} %",
                dash="solid",
                width=1.8,
                fill=f"{entry.token}_band",
            )
        )
    start, end = padded(min(edges[0], 0.0), max(edges[-1], 0.0), 0.02)
    return Chart(
        "documents-change",
        "How far they moved",
        Figure(
            Axis("kept minus base", low=start, high=end),
            Axis(low=0, suffix=" %"),
            marks,
            [Rule("base", x=0, label="no change")],
        ),
        "Share of documents by change in nats per token; left of zero is better",
        "Distribution of the change in loss per document. " + _improved_in_words(series),
        "The nearer the two shapes, the more of what was learned carries over to unseen text. "
        "The outermost bars hold all that lies beyond.",
        Table(
            ("from", "to", *(s.label for s in series)),
            [
                (
                    words.number(edges[place]),
                    words.number(edges[place + 1]),
                    *(f"{share[place]:.1f}\u00a0%" for share in shares),
                )
                for place in range(len(edges) - 1)
            ],
        ),
        360,
        tuple(Key(s.label, s.token, "solid") for s in series),
    )


def _improved_in_words(series: Sequence[BeforeAfter]) -> str:
    return " ".join(f"{s.label}: {words.percent(s.share_improved)} improved." for s in series)


def _thinned(num: int) -> np.ndarray:
    if num <= MAX_DOTS:
        return np.arange(num)
    return np.sort(np.random.default_rng(0).choice(num, MAX_DOTS, replace=False))
