"""How much models memorized, typed; everything on its page and in its JSON is here."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.finite import without_infinity
from heldout.core.measurement import Measurement, measurement_from_json
from heldout.core.shown import Shown

SCHEMA = "heldout.capacity/1"


@dataclass(frozen=True)
class Filled:
    """One model, trained from scratch on one amount of text.

    ``memorized`` is in bits per parameter, over sequences (random tokens) or groups (real text);
    its control ``heldout`` is the same figure on as much text that the model has not seen.
    """

    config: str  # name of the configuration
    parameters: int
    text: str  # "random tokens", or the name of a data set
    num_sequences: int  # or rows
    num_tokens: int
    data_bits: float  # of the text under the reference: uniform for random tokens
    steps: int
    memorized: Measurement
    seconds: float  # of processor time

    @property
    def load(self) -> float:
        """Bits of text per parameter: all that could be memorized."""
        return self.data_bits / self.parameters

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "load": self.load, "memorized": self.memorized.to_json()}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Filled":
        """Inverse of ``to_json``."""
        values = {key: value for key, value in entry.items() if key != "load"}
        memorized = measurement_from_json(values.pop("memorized"))
        assert isinstance(memorized, Measurement)
        return cls(memorized=memorized, **values)


@dataclass(frozen=True)
class Plateau:
    """The most that one configuration memorized of one text, over all amounts that were tried.

    A lower bound of its capacity: training was finite. ``is_reached`` says whether more text
    brought no more bits.
    """

    config: str
    text: str
    parameters: int
    bits_per_parameter: float
    low: float
    high: float
    load: float  # where it is
    steps: int
    is_reached: bool
    sentence: str


@dataclass(frozen=True)
class CapacityResult(Shown):
    """All trained models and what follows from them."""

    filled: list[Filled]
    plateaus: list[Plateau]
    settings: dict[str, Any]
    notes: list[str]
    report: str | None = None

    def table_rows(self) -> Iterable[Any]:
        """Each training."""
        return self.filled

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.capacity/1``."""
        return {
            "schema": SCHEMA,
            "filled": [each.to_json() for each in self.filled],
            "plateaus": [without_infinity(asdict(each)) for each in self.plateaus],
            "settings": self.settings,
            "notes": self.notes,
            "report": self.report,
        }


def plateaus(filled: list[Filled]) -> list[Plateau]:
    """The plateau of each configuration on each text, in the order in which they were filled."""
    found = []
    for config, text in dict.fromkeys((each.config, each.text) for each in filled):
        own = [each for each in filled if (each.config, each.text) == (config, text)]
        own.sort(key=lambda each: each.load)
        peak = max(own, key=lambda each: each.memorized.value)
        bounds = peak.memorized.interval
        assert bounds is not None, "every filled model has an interval"
        beyond = [each for each in own if each.load > peak.load]
        # Where most of the text still fits, a model was not full, whatever came after.
        is_reached = bool(beyond) and peak.memorized.value < 0.9 * peak.load
        words = (
            f"more text than {peak.load:.3g} bits per parameter brought no more in as many steps"
            if is_reached
            else "no plateau yet: more text, or more steps, may bring more"
        )
        found.append(
            Plateau(
                config,
                text,
                peak.parameters,
                peak.memorized.value,
                bounds.low,
                bounds.high,
                peak.load,
                peak.steps,
                is_reached,
                f"{config} holds at least {peak.memorized.value:.2f} bits per parameter of {text} "
                f"({peak.steps:,} steps of training): {words}.",
            )
        )
    return found
