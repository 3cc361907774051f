"""What an ensemble and its distillation found, typed; pages and JSON hold nothing else."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from heldout.core.finite import without_infinity
from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.results.with_measurements import WithMeasurements

SCHEMA = "heldout.ensemble/1"
DISTILL_SCHEMA = "heldout.distill/1"


@dataclass(frozen=True)
class FittedLoss:
    """The law at one size, in nats per token, with an interval over members and documents."""

    size: float
    value: float
    interval: Interval


@dataclass(frozen=True)
class Asymptote:
    """L(K) = L_inf + A / K through the measured sizes; losses in nats per token.

    ``remaining`` is A / K for the members at hand: what more of them could still gain.
    ``largest_miss`` is the largest distance of a measured size from the law.
    """

    limit: FittedLoss
    slope: float
    remaining: float
    remaining_interval: Interval
    largest_miss: float
    num_members: int
    num_groups: int
    condition: str


@dataclass(frozen=True)
class Member:
    """One training of the ensemble; losses in nats per token, folders beside ``ensemble.json``."""

    run: str
    seed: int
    nats_per_token: float
    interval: Interval
    validation_nats_per_token: float
    best_epoch: float


@dataclass(frozen=True)
class SizeLoss:
    """Ensembles of one size, the mean over those measured; intervals given these members."""

    size: int
    num_ensembles: int
    nats_per_token: float
    interval: Interval
    gain: float  # over one member
    gain_interval: Interval


@dataclass(frozen=True)
class ServingCost:
    """What predicting with all members takes, beside one of them."""

    forwards: int  # for each token
    parameters: int  # that must lie in memory
    parameters_of_one: int

    @property
    def times_memory(self) -> float:
        return self.parameters / self.parameters_of_one


@dataclass(frozen=True)
class EnsembleResult(WithMeasurements):
    """Members, the loss of their ensembles of every size on the sealed test, and its limit."""

    model: str
    from_scratch: str
    data: str
    sha256: str  # of the data
    num_documents: int
    num_groups: int
    num_tokens: int
    members: tuple[Member, ...]
    sizes: tuple[SizeLoss, ...]
    limit: Asymptote | None
    curve: tuple[FittedLoss, ...]  # the fitted law at sizes up to four times the members
    measurements: tuple[Measurement | NotMeasured, ...]
    cost: ServingCost
    headline: str
    notes: tuple[str, ...]
    report: str

    def table_rows(self) -> Iterable[Any]:
        """The loss by the number of members."""
        return self.sizes

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.ensemble/1``."""
        limit = None
        if self.limit is not None:
            limit = asdict(self.limit)
            limit["limit"].pop("size")  # infinity, which JSON does not know
        entry = {
            "schema": SCHEMA,
            "headline": self.headline,
            "model": self.model,
            "from_scratch": self.from_scratch,
            "data": self.data,
            "sha256": self.sha256,
            "num_documents": self.num_documents,
            "num_groups": self.num_groups,
            "num_tokens": self.num_tokens,
            "members": [asdict(each) for each in self.members],
            "sizes": [asdict(each) for each in self.sizes],
            "limit": limit,
            "curve": [asdict(each) for each in self.curve],
            "measurements": [each.to_json() for each in self.measurements],
            "cost": {**asdict(self.cost), "times_memory": self.cost.times_memory},
            "notes": list(self.notes),
            "report": self.report,
        }
        return without_infinity(entry)


@dataclass(frozen=True)
class DistillResult(WithMeasurements):
    """One model that learned from an ensemble, beside one member and the ensemble."""

    ensemble: str
    run: str
    best: str
    num_members: int
    weight: float
    temperature: float
    measurements: tuple[Measurement | NotMeasured, ...]
    headline: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.distill/1``."""
        entry = asdict(self)
        entry["notes"] = list(self.notes)
        entry["measurements"] = [each.to_json() for each in self.measurements]
        return {"schema": DISTILL_SCHEMA, **entry}
