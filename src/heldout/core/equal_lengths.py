"""Generated text of a model, of the base model and of people after the same prompts, equally long.

Every figure of repetition grows with the length of a text, so texts are cut to one length first.
"""

# P prompts

from dataclasses import dataclass

import numpy as np

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence
from heldout.core.stats import paired_difference, ratio_estimate

LEAST_PROMPTS = 16
LEAST_GROUPS = 3
LEAST_TOKENS = 8  # of each text, of English; shorter ones say nothing about repetition
PARTS = ("test", "validation")  # prompts that training has not seen, the first there is
HUMAN = "human"


@dataclass(frozen=True)
class EqualLengths:
    """Of each writer (the model's name, ``base`` where there is one, ``human``), by prompt."""

    ids: dict[str, list[np.ndarray]]  # one number of tokens for all writers of a prompt
    texts: dict[str, list[str]]  # one number of characters
    groups_P: np.ndarray
    row_index_P: np.ndarray

    def __len__(self) -> int:
        return len(self.groups_P)

    @property
    def lengths_P(self) -> np.ndarray:
        """Tokens of each text."""
        return np.array([len(ids) for ids in self.ids[HUMAN]])


def judged_part(evidence: Evidence, model: str) -> str | None:
    """The part whose generations by ``model`` are judged, None without any."""
    return next((part for part in PARTS if (model, part) in evidence.generations), None)


def equal_lengths(evidence: Evidence, model: str) -> EqualLengths | None:
    """The texts of ``model`` and its controls after the same prompts; None with too few of them."""
    part = judged_part(evidence, model)
    if part is None:
        return None
    own = evidence.generations[model, part]
    writers = {model: own}
    if (base := evidence.generations.get(("base", part))) is not None:
        writers["base"] = base
    place_of = {
        name: {int(row): place for place, row in enumerate(generated.row_index)}
        for name, generated in writers.items()
    }
    rows = [int(row) for row in own.row_index if all(int(row) in p for p in place_of.values())]
    least = evidence.token_size.tokens(LEAST_TOKENS)
    ids: dict[str, list[np.ndarray]] = {name: [] for name in (*writers, HUMAN)}
    texts: dict[str, list[str]] = {name: [] for name in ids}
    kept = []
    for row in rows:
        place = place_of[model][row]
        found = {name: written.token_ids[place_of[name][row]] for name, written in writers.items()}
        found[HUMAN] = own.reference_ids[place]
        words = {name: written.texts[place_of[name][row]] for name, written in writers.items()}
        words[HUMAN] = own.references[place]
        num_tokens = min(map(len, found.values()))
        num_characters = min(map(len, words.values()))
        if num_tokens < least or not num_characters:
            continue
        kept.append(place)
        for name in ids:
            ids[name].append(found[name][:num_tokens])
            texts[name].append(words[name][:num_characters])
    if len(kept) < LEAST_PROMPTS or len(np.unique(own.groups[kept])) < LEAST_GROUPS:
        return None
    return EqualLengths(ids, texts, own.groups[kept], own.row_index[kept])


def too_few(name: str, evidence: Evidence) -> NotMeasured:
    least = evidence.token_size.tokens(LEAST_TOKENS)
    return NotMeasured(
        name,
        f"needs generated text after {LEAST_PROMPTS} prompts of {LEAST_GROUPS} groups, each "
        f"continued by {least} tokens or more",
    )


def compared_means(
    name: str,
    unit: str,
    values: dict[str, np.ndarray],
    groups_P: np.ndarray,
    model: str,
    weights_P: np.ndarray | None = None,
    note: str = "",
) -> Measurement:
    """Mean over prompts of the model's value, with the paired difference to each other writer."""
    weights = np.ones(len(groups_P)) if weights_P is None else weights_P
    level = ratio_estimate(values[model] * weights, weights, groups_P)
    contrasts = {
        control: paired_difference(
            values[model] * weights, values[control] * weights, weights, groups_P
        ).as_contrast()
        for control in values
        if control != model
    }
    return level.as_measurement(name, unit, "group of prompts", contrasts, note)
