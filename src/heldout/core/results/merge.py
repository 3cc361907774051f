"""What merging an adapter into its base wrote, and how near the written model is to the pair."""

from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.results.with_measurements import WithMeasurements

SCHEMA = "heldout.merge/1"
PLAN_SCHEMA = "heldout.merge_plan/1"


@dataclass(frozen=True)
class LogitAgreement:
    """How near two models are in what they predict after the same tokens.

    Differences are of raw logits; the divergences KL(before || after) are in nats a position.
    """

    num_rows: int
    num_positions: int
    largest_difference: float
    mean_kl_nats: float
    largest_kl_nats: float
    same_likeliest: float  # share of the positions


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that was read back with transformers; ``agreement`` is with the merged model."""

    file: str
    num_bytes: int
    architecture: str
    split: str  # of texts into words, by llama.cpp's name
    agreement: LogitAgreement


@dataclass(frozen=True)
class MergeResult(WithMeasurements):
    """The folder of the merged model, with its losses beside those of adapter and base.

    ``part`` is where the rows come from: validation, train, heldout, or texts that the package
    brings. ``is_worse``: the loss rose by surely more than ``min_effect``, nats per token.
    """

    source: str
    base: str  # empty where all weights were trained
    out: str
    dtype: str
    num_parameters: int
    num_bytes: int  # of the weights' files
    part: str
    min_effect: float
    is_worse: bool
    agreement: LogitAgreement
    measurements: tuple[Measurement | NotMeasured, ...]
    headline: str
    notes: tuple[str, ...]
    gguf: GgufFile | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.merge/1``."""
        entry = asdict(self)
        entry["measurements"] = [each.to_json() for each in self.measurements]
        entry["notes"] = list(self.notes)
        return {"schema": SCHEMA, **entry}


@dataclass(frozen=True)
class MergePlan:
    """What a merge would write, and its size, found out without reading the weights."""

    source: str
    base: str
    dtype: str
    num_parameters: int
    writes: dict[str, int]  # path -> bytes, about
    free_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.merge_plan/1``."""
        return {"schema": PLAN_SCHEMA, **asdict(self)}
