"""Dates of rows, for a split in time."""

import math
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Protocol

from heldout.core.errors import UserError


class Dated(Protocol):
    """A row as it stands in its source."""

    @property
    def fields(self) -> dict[str, Any]: ...
    @property
    def where(self) -> str: ...


def dates_of(records: Iterable[Dated], column: str) -> list[float]:
    """The column of each record as a number that grows with time.

    ISO 8601 (2024-05-31, with a time of day or not; without a zone it is UTC) as seconds since
    1970, or numbers as they stand, such as years. Raises UserError with the first row that has
    neither, or where the two are mixed.
    """
    values = []
    first_kind = ""
    for record in records:
        kind, value = _parsed(record.fields.get(column))
        if not kind:
            raise UserError(
                f"data.time: {record.where}: {record.fields.get(column)!r} in {column!r} is no "
                "date: it must be as 2024-05-31, 2024-05-31T10:00:00 or a number such as a year."
            )
        if kind != (first_kind := first_kind or kind):
            raise UserError(
                f"data.time: {record.where}: {record.fields.get(column)!r} in {column!r} is a "
                f"{kind}, and rows before it have a {first_kind}: give one of the two in all rows."
            )
        values.append(value)
    return values


def _parsed(value: Any) -> tuple[str, float]:
    """Which kind it is, empty for neither, and the value."""
    if isinstance(value, bool) or value is None:
        return "", 0.0
    if isinstance(value, datetime):
        return "date", (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return "date", datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    try:
        number = float(value)
        return ("number", number) if math.isfinite(number) else ("", 0.0)
    except (TypeError, ValueError):
        pass
    try:
        return _parsed(datetime.fromisoformat(str(value).strip()))
    except ValueError:
        return "", 0.0


def shown(value: float, is_date: bool) -> str:
    """A date of ``dates_of`` in words."""
    if not is_date:
        return f"{value:g}" if value != int(value) else str(int(value))
    moment = datetime.fromtimestamp(value, tz=UTC)
    return moment.strftime("%Y-%m-%d") if value % 86400 == 0 else moment.strftime("%Y-%m-%d %H:%M")
