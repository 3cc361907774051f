"""How many tokens of held-out rows are among the five likeliest, under each model."""

from dataclasses import dataclass

import numpy as np

from a_probe.probes.top_five import Hits
from heldout import Evidence, Gatherer, Given
from heldout.functions import max_length_of, sharpness, tokenize_row


@dataclass(frozen=True)
class TopFiveGatherer(Gatherer):
    """Adds ``Hits`` under the model."""

    probes = ("top_five",)
    stage = "ranks"

    def num_steps(self, given: Given) -> int:
        return len(given.models)

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        loaded, rows = given.models[name], given.texts.heldout
        length = max_length_of(loaded, given.recipe)
        windows = [tokenize_row(row, loaded.tokenizer, length).windows[0] for row in rows]
        found = sharpness(loaded.model, windows, loaded.tokenizer.pad_token_id, batch_size=8)
        hits = Hits(
            found.per_window(found.rank_N < 5),
            found.per_window(np.ones(len(found.rank_N))),
            np.array([row.group for row in rows]),
        )
        given.progress.advance(1, name)
        return evidence.adding(hits, name)
