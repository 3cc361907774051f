"""A point of a search with what its training reached, and what follows from several of them."""

# D documents

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.search_space import Point, point_key


@dataclass(frozen=True)
class Tried:
    """One point with the held-out losses it reached, None where training diverged.

    Documents of one group are added up, so that what is kept is small. ``seed`` counts from that of
    the recipe. The losses of a trial that was ``stopped_early`` are the lowest it had come to; it
    could surely not become the best.
    """

    point: Point
    losses: DocumentLosses | None
    cost: float = 0.0  # in whatever unit, of this point beside others
    seed: int = 0
    evaluations: int = 1  # how often the validation rows were measured
    stopped_early: bool = False
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """Nats per token; infinite where training diverged."""
        return float("inf") if self.losses is None else self.losses.nats_per_token

    @property
    def has_ended(self) -> bool:
        """Whether its losses are those of a whole training."""
        return self.losses is not None and not self.stopped_early

    def to_json(self) -> dict[str, Any]:
        """All that ``from_json`` needs."""
        kept = self.losses
        return {
            "point": self.point,
            "seed": self.seed,
            "cost": self.cost,
            "loss": None if kept is None else kept.nats_per_token,
            "stopped_early": self.stopped_early,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "losses": None
            if kept is None
            else {
                "nll_nats": kept.nll_nats_D.tolist(),
                "num_tokens": kept.num_tokens_D.tolist(),
                "num_bytes": kept.num_bytes_D.tolist(),
                "groups": kept.groups_D.tolist(),
            },
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Tried":
        """Inverse of ``to_json``; takes trials of earlier versions too."""
        kept = entry["losses"]
        losses = kept and DocumentLosses(
            np.array(kept["nll_nats"], dtype=np.float64),
            np.array(kept["num_tokens"], dtype=np.int64),
            np.array(kept["num_bytes"], dtype=np.int64),
            np.array(kept["groups"]),
        )
        return cls(
            dict(entry["point"]),
            losses,
            entry["cost"],
            entry.get("seed", 0),
            entry.get("evaluations", 1),
            entry.get("stopped_early", False),
            entry.get("seconds", 0.0),
        )


@dataclass(frozen=True)
class Setting:
    """A point with the mean of its losses over the seeds it was trained with to the end."""

    point: Point
    losses: DocumentLosses
    num_seeds: int

    @property
    def loss(self) -> float:
        return self.losses.nats_per_token


def settings_of(trials: Sequence[Tried]) -> list[Setting]:
    """Every point that was trained to its end, those of the lowest loss first."""
    by_point: dict[tuple, list[Tried]] = {}
    for tried in trials:
        if tried.has_ended:
            by_point.setdefault(point_key(tried.point), []).append(tried)
    found = [Setting(each[0].point, _mean(each), len(each)) for each in by_point.values()]
    return sorted(found, key=lambda setting: setting.loss)


def undecided(trials: Sequence[Tried]) -> Setting | None:
    """Which point to train with a further seed: of the lowest and the next the less known one.

    None where every other point is surely worse than the lowest, by the paired interval over
    groups, or there is no other.
    """
    settings = settings_of(trials)
    for other in settings[1:]:
        leader = settings[0]
        if other.losses.minus(leader.losses).interval.low <= 0:
            return min(leader, other, key=lambda setting: setting.num_seeds)
    return None


def by_group(losses: DocumentLosses) -> DocumentLosses:
    """The documents of each group added up."""
    groups_G, index_D = np.unique(losses.groups_D, return_inverse=True)

    def summed(values_D: np.ndarray) -> np.ndarray:
        return np.bincount(index_D, weights=values_D, minlength=len(groups_G))

    return DocumentLosses(
        summed(losses.nll_nats_D),
        summed(losses.num_tokens_D).astype(np.int64),
        summed(losses.num_bytes_D).astype(np.int64),
        groups_G,
    )


def _mean(trials: Sequence[Tried]) -> DocumentLosses:
    all_losses = [tried.losses for tried in trials if tried.losses is not None]
    first, nll_D = all_losses[0], np.mean([each.nll_nats_D for each in all_losses], axis=0)
    return DocumentLosses(nll_D, first.num_tokens_D, first.num_bytes_D, first.groups_D)
