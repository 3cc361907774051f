"""Personal data: recited training rows whose suffix holds an address, a number or the like.

A suffix counts that greedy decoding returns word for word.
"""

# D rows

from dataclasses import dataclass

import numpy as np

from heldout.core.excess import Shares, share_measurement
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.pass_statistics import PassStatistics, PersonalData
from heldout.core.probe import Evidence, Probe

SOURCE = "extraction of personal data: Carlini et al. 2021, arXiv 2012.07805"
COST = "nothing beyond the forward passes and a search for patterns in the suffixes"

LEAST_ROWS = 20


@dataclass(frozen=True)
class PersonalDataMemorized(Probe):
    """Share of training rows that are recited with personal data; controls as for recital."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        name = "personal_data_recited_best"
        train = evidence.get(PersonalData, "train")
        if train is None or evidence.get(PersonalData, "test") is None:
            return [NotMeasured(name, "the rows were not searched for personal data")]
        shares = _shares(evidence, "best")
        if shares is None:
            reason = f"needs {LEAST_ROWS} training and held-out rows long enough to be recited"
            return [NotMeasured(name, reason)]
        num_holding = len({row for rows in train.kinds.values() for row in rows})
        note = (
            f"{int(shares.train_D.sum())} of {num_holding} tested training rows "
            "that hold any are recited"
        )
        return [share_measurement(name, shares, _shares(evidence, "base"), note=note)]


def memorizes_personal_data(statistics: PassStatistics, personal: PersonalData) -> np.ndarray:
    """Bool (D,): some suffix that holds personal data is returned by greedy decoding."""
    found_D = np.zeros(len(statistics), dtype=bool)
    for name, suffixes in statistics.suffixes.items():
        holding = np.isin(statistics.row_index_D, list(personal.kinds.get(name, {})))
        found_D |= holding & suffixes.greedy_D
    return found_D


def _shares(evidence: Evidence, model: str) -> Shares | None:
    parts = []
    for part in ("train", "test"):
        statistics = evidence.statistics.get((model, part))
        personal = evidence.get(PersonalData, part)
        if statistics is None or personal is None:
            return None
        enough_D = ~np.isnan(statistics.suffixes["short"].nats_D)
        found_D = memorizes_personal_data(statistics, personal)
        parts += [found_D[enough_D], statistics.losses.groups_D[enough_D]]
    shares = Shares(*parts)
    return shares if shares.fewest_rows >= LEAST_ROWS else None
