"""Results as a notebook shows them, and as tables of pandas."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heldout.core.language import say
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.verdict import Verdicts

if TYPE_CHECKING:
    import pandas

_MOST_SHOWN = 20  # rows of a table in a notebook
_COLORS = {"green": "#2e7d32", "yellow": "#f9a825", "red": "#c62828", "unknown": "#9e9e9e"}


class Shown(ABC):
    """A result with a headline, and rows that are a table."""

    @abstractmethod
    def table_rows(self) -> Iterable[Any]:
        """What the table holds: dataclasses, or dicts."""

    def to_pandas(self) -> "pandas.DataFrame":
        """One line for each of ``table_rows()``; nested fields are columns such as ``first.row``.

        Needs pandas, which comes with the package.
        """
        import pandas

        return pandas.json_normalize([_flat(row) for row in self.table_rows()])

    def _repr_html_(self) -> str:
        return _own_html(self)


def _own_html(result: Shown) -> str:
    """The headline, the lights, and the first rows."""
    table = result.to_pandas()
    verdict: Any = getattr(result, "verdict", None)
    headline = getattr(result, "headline", "") or getattr(result, "sentence", "")
    if isinstance(verdict, Verdicts):
        headline = verdict.headline
    parts = [f"<p><b>{escape(say(headline))}</b></p>"] if headline else []
    if isinstance(verdict, Verdicts):
        parts += [
            _light(name, each.color, each.sentence) for name, each in verdict.verdicts.items()
        ]
    if len(table):
        parts.append(table.head(_MOST_SHOWN).to_html(index=False, na_rep=""))
    return "".join(parts)


def _light(name: str, color: str, sentence: str) -> str:
    dot = f'<span style="color:{_COLORS.get(color, _COLORS["unknown"])}">&#9679;</span>'
    return f"<p>{dot} {escape(say(name))} ({escape(say(color))}): {escape(say(sentence))}</p>"


def _flat(row: Any) -> dict[str, Any]:
    """A row as a dict; of a measurement the value and its interval."""
    if isinstance(row, NotMeasured):
        return {"name": row.name, "note": row.reason}
    if isinstance(row, Measurement):
        interval = row.interval
        known = interval is not None and not interval.is_withheld
        return {
            "name": row.name,
            "value": row.value,
            "low": interval.low if interval is not None and known else None,
            "high": interval.high if interval is not None and known else None,
            "unit": row.unit,
            "num_units": row.num_units,
            "resampled_unit": row.resampled_unit,
            "note": row.note,
        }
    return dict(row) if isinstance(row, dict) else dataclasses.asdict(row)


def framed(result: Shown, page: Path) -> str:
    """For a notebook: the page of a run with its figures, else what the result says itself."""
    return page_frame(page.read_text(encoding="utf-8")) if page.is_file() else _own_html(result)


def page_frame(page: str) -> str:
    """A whole page of ours inside a cell of a notebook."""
    style = "width:100%;height:640px;border:0"
    return f'<iframe srcdoc="{escape(page)}" style="{style}" sandbox="allow-scripts"></iframe>'
