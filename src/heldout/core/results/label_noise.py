"""Which answers do not belong to their prompts, as told by models that have not seen them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.measurement import Measurement, NotMeasured, measurement_from_json
from heldout.core.shown import Shown


@dataclass(frozen=True)
class DoubtfulAnswer:
    """An answer that its own prompt does not make likelier than the prompts of other rows do.

    ``excess_bits``: bits per token after its own prompt minus the mean after the others, out of
    fold; above 0. ``base_excess_bits``: the same before any training.
    """

    row: int  # in its source, counted from 0
    where: str
    prompt: str
    answer: str
    excess_bits: float
    base_excess_bits: float


@dataclass(frozen=True)
class LabelNoise(Shown):
    """Rows judged by models that were fine-tuned on the other folds.

    ``doubtful`` has the worst first, at most a nominal share of the rows. ``excess_bits`` is of
    all judged rows, ``swapped_excess_bits`` of the same rows with prompts swapped on purpose.
    """

    num_rows: int  # read by the models
    num_judged: int  # of these, with a prompt and one answer
    num_folds: int
    epochs: float
    learning_rate: float
    doubtful: list[DoubtfulAnswer]
    excess_bits: list[float]
    swapped_excess_bits: list[float]
    measurements: list[Measurement | NotMeasured]

    def table_rows(self) -> Iterable[Any]:
        """The answers in doubt."""
        return self.doubtful

    @property
    def sentence(self) -> str:
        """The finding in words."""
        reasons = [each.reason for each in self.measurements if isinstance(each, NotMeasured)]
        if reasons:
            return f"Answers could not be judged: {reasons[0]}."
        num, judged = len(self.doubtful), f"{self.num_judged:,} answers"
        if not num:
            return f"Of {judged} none is in doubt."
        why = "no likelier after the row's own prompt than after those of other rows"
        if num == 1:
            return f"1 of {judged} is in doubt: {why}."
        return f"{num:,} of {judged} are in doubt: {why}."

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "sentence": self.sentence,
            "measurements": [each.to_json() for each in self.measurements],
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "LabelNoise":
        """Inverse of ``to_json``."""
        kept = {key: value for key, value in entry.items() if key != "sentence"}
        kept["doubtful"] = [DoubtfulAnswer(**each) for each in entry["doubtful"]]
        kept["measurements"] = [measurement_from_json(each) for each in entry["measurements"]]
        return cls(**kept)
