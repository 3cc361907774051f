"""Generated loss: what the base model makes of a text that a model wrote, beside people's text.

Greedy text consists of likely words, so that the base model reads what a sound model writes more
easily than what people wrote after the same prompts, of the same subject and the same length. Text
that has come apart is as surprising to it as theirs, or more. Text that goes round in circles is
not: see ``repetition``.
"""

# P prompts

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.equal_lengths import (
    HUMAN,
    LEAST_PROMPTS,
    LEAST_TOKENS,
    compared_means,
    judged_part,
)
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.stats import LEAST_TO_RESAMPLE

SOURCE = (
    "perplexity of generated text beside that of human text: Holtzman et al. 2020, arXiv 1904.09751"
)
COST = "one forward pass of the base model over the shared generations and their references"

_NOTHING = (
    "the model wrote nothing after held-out rows: heldout diagnose lets it, with --heldout and "
    "without --no-generate"
)


@dataclass(frozen=True)
class GeneratedLoss(Probe):
    """Nats per token; the ``human`` contrast is positive where people's text is read more easily.

    Both texts are cut to the length of the shorter one.
    """

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            if model == "base":
                continue
            measured = _of(evidence, model)
            if model == "best" or isinstance(measured, Measurement):
                found.append(measured)
        return found


def _of(evidence: Evidence, model: str) -> Measurement | NotMeasured:
    name = f"generated_nll_{model}"
    part = judged_part(evidence, model)
    if part is None:
        return NotMeasured(name, _NOTHING)
    written = evidence.generations[model, part]
    if written.own_nats is None or written.reference_nats is None:
        return NotMeasured(
            name,
            "what the model writes is read by its base model, with the same tokenizer: name it "
            "with --base",
        )
    lengths_P = np.minimum(*(_lengths(n) for n in (written.own_nats, written.reference_nats)))
    least = evidence.token_size.tokens(LEAST_TOKENS)
    kept = np.flatnonzero(lengths_P >= least)
    groups_P, lengths_P = written.groups[kept], lengths_P[kept].astype(np.float64)
    num_groups = len(np.unique(groups_P))
    if len(kept) < LEAST_PROMPTS or num_groups < LEAST_TO_RESAMPLE:
        return NotMeasured(
            name,
            f"needs {LEAST_PROMPTS} held-out rows of {LEAST_TO_RESAMPLE} groups where the model "
            f"and the row both go on for {least} tokens or more, has {len(kept)} of {num_groups}: "
            "give more rows, or longer ones",
        )
    means = {
        writer: np.array(
            [nats[place][: int(lengths_P[at])].mean() for at, place in enumerate(kept)]
        )
        for writer, nats in ((model, written.own_nats), (HUMAN, written.reference_nats))
    }
    note = f"under the base model, equal lengths of {lengths_P.mean():.0f} tokens on average"
    return compared_means(name, "nats/token", means, groups_P, model, lengths_P, note)


def _lengths(nats: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([len(each) for each in nats], dtype=np.int64)
