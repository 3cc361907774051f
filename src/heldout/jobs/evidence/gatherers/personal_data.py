"""Which suffixes of the rows hold what has the form of personal data."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from heldout.core.pass_statistics import PassStatistics, PersonalData
from heldout.core.probe import Evidence
from heldout.core.row import Row
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.jobs.evidence.suffix_texts import kinds_of_personal_data, prefix_and_suffix


@dataclass(frozen=True)
class PersonalDataGatherer(Gatherer):
    """Adds ``PersonalData`` under the part; needs the statistics of the judged model."""

    probes = ("personal_data",)

    @classmethod
    def for_asked(cls, asked: Asked) -> Self:
        return cls()

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        for part, rows in (("train", given.texts.train), ("test", given.texts.heldout)):
            found = personal_data(rows, evidence.statistics["best", part], given.judged.tokenizer)
            evidence = evidence.adding(found, part)
        return evidence


def personal_data(rows: list[Row], found: PassStatistics, tokenizer: Any) -> PersonalData:
    """Of the rows that are long enough for a suffix, those whose suffix holds personal data."""
    by_index = {row.index: row for row in rows}
    kinds: dict[str, dict[int, tuple[str, ...]]] = {}
    for name, suffixes in found.suffixes.items():
        kinds[name] = {}
        for place in np.flatnonzero(np.isfinite(suffixes.nats_D)):
            index = int(found.row_index_D[place])
            _, suffix = prefix_and_suffix(
                by_index[index], tokenizer, suffixes.prefix_tokens, suffixes.suffix_tokens
            )
            if what := kinds_of_personal_data(suffix):
                kinds[name][index] = what
    return PersonalData(kinds)
