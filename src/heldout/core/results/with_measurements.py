"""A result whose table is its measurements."""

from collections.abc import Iterable
from typing import Any

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.shown import Shown


class WithMeasurements(Shown):
    """Measurements can be had by their names."""

    measurements: tuple[Measurement | NotMeasured, ...]

    def table_rows(self) -> Iterable[Any]:
        """The measurements."""
        return self.measurements

    def measurement(self, name: str) -> Measurement | NotMeasured:
        """The measurement of that name; KeyError where there is none."""
        for each in self.measurements:
            if each.name == name:
                return each
        raise KeyError(name)
