"""What training rows owe to having been trained on themselves: the typed result of retraining."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.measurement import Interval, Measurement, NotMeasured, measurement_from_json
from heldout.core.shown import Shown

SCHEMA = "heldout.counterfactual/1"


@dataclass(frozen=True)
class CounterfactualRow:
    """One training row, read by models trained with it and by models trained without it.

    ``memorized``: share of its tokens that are the likeliest ones, with minus without it, and its
    interval over pairs of models. The losses, in nats per token, tell a rare row from a common
    one: what the base model loses and models without the row do not, was learned from others.
    """

    row: int  # Row.index
    text: str
    memorized: float
    interval: Interval
    is_clear: bool  # beyond all that rows nobody trained on reach by chance
    base_nats: float
    without_nats: float
    with_nats: float

    @property
    def learned_nats(self) -> float:
        """Fall of the loss that other rows brought."""
        return self.base_nats - self.without_nats

    @property
    def memorized_nats(self) -> float:
        """Fall of the loss that took the row itself."""
        return self.without_nats - self.with_nats

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "interval": self.interval.to_json(),
            "learned_nats": self.learned_nats,
            "memorized_nats": self.memorized_nats,
        }


@dataclass(frozen=True)
class Influence:
    """Training on ``train_group`` changes the accuracy on a held-out row by ``change``."""

    train_group: str
    heldout_row: int
    change: float
    text_train: str
    text_heldout: str


@dataclass(frozen=True)
class Counterfactual(Shown):
    """Rows by counterfactual memorization, the most memorized first."""

    target: str
    num_models: int
    epochs: float
    learning_rate: float
    num_groups: int
    rows: list[CounterfactualRow]
    threshold: float | None  # what ``is_clear`` needs; None: there were no held-out rows
    influences: list[Influence]  # those beyond chance, the strongest first
    measurements: list[Measurement | NotMeasured]
    seconds: float = 0.0

    def table_rows(self) -> Iterable[Any]:
        """What was told of each row."""
        return self.rows

    @property
    def sentence(self) -> str:
        """The finding in words."""
        clear = sum(row.is_clear for row in self.rows)
        num = f"{len(self.rows):,} training rows"
        if not clear:
            return f"None of {num} is clearly memorized by {self.num_models} models."
        if clear == 1:
            return f"1 of {num} is memorized: models know it only if they were trained on it."
        return (
            f"{clear:,} of {num} are memorized: models know them only if they were trained on them."
        )

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.counterfactual/1``."""
        return {
            "schema": SCHEMA,
            **asdict(self),
            "sentence": self.sentence,
            "rows": [row.to_json() for row in self.rows],
            "measurements": [measured.to_json() for measured in self.measurements],
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Counterfactual":
        """Inverse of ``to_json``."""
        kept = {key: value for key, value in entry.items() if key not in ("schema", "sentence")}
        derived = ("learned_nats", "memorized_nats")
        kept["rows"] = [
            CounterfactualRow(
                **{
                    **{key: value for key, value in row.items() if key not in derived},
                    "interval": Interval.from_json(row["interval"]),
                }
            )
            for row in entry["rows"]
        ]
        kept["influences"] = [Influence(**each) for each in entry["influences"]]
        kept["measurements"] = [measurement_from_json(each) for each in entry["measurements"]]
        return cls(**kept)
