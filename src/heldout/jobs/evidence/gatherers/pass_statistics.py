"""All that one pass over each part tells of each model: what most probes read."""

from dataclasses import dataclass, replace
from typing import Self

from heldout.core.probe import Evidence, VerbatimMemorization
from heldout.core.progress import advance_to
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.jobs.evidence.model_on_part import read_part


@dataclass(frozen=True)
class PassStatisticsGatherer(Gatherer):
    """Fills ``statistics``, and ``losses`` and ``memorization`` from them."""

    stage = "reading"

    @classmethod
    def for_asked(cls, asked: Asked) -> Self:
        return cls()

    def num_steps(self, given: Given) -> int:
        return len(given.models) * sum(map(len, given.parts.values()))

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        read = dict(evidence.statistics)
        loaded, keys = given.models[name], given.keys(name)
        for part, rows in given.parts.items():
            advance = advance_to(given.progress)
            found = given.kept.read(keys, rows) if keys else None
            if found is None:
                found = read_part(loaded, rows, given.recipe, given.size, advance)
            advance(len(rows))
            read[name, part] = found
        return replace(
            evidence,
            statistics=read,
            losses={key: found.losses for key, found in read.items()},
            memorization={key: VerbatimMemorization.of(found) for key, found in read.items()},
        )
