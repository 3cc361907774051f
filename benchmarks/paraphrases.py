"""Texts in two wordings that share few words and mean the same, each of a subject of its own.

``paraphrases.tsv`` was written for this benchmark, a pair a line. ``same_events`` makes rows that
tell of like events with other people and things: what is told in the same words about something
else is no paraphrase.
"""

import random
from pathlib import Path


def paraphrase_pairs() -> list[tuple[str, str]]:
    lines = Path(__file__).with_suffix(".tsv").read_text(encoding="utf-8").splitlines()
    return [(first, second) for first, second in (line.split("\t") for line in lines)]


_PEOPLE = (
    "The baker",
    "A sailor",
    "My uncle",
    "The judge",
    "A student",
    "The singer",
    "Her nephew",
)
_DEEDS = (
    "bought a used {thing} from a friend in {place} and paid in cash",
    "lost the keys to an old {thing} on the way to {place}",
    "was asked to repair a broken {thing} before leaving for {place}",
    "wanted to give away a {thing} that had been in {place} for years",
)
_OBJECTS = ("piano", "truck", "camera", "sewing machine", "clock", "bicycle", "radio", "boat")
_PLACES = ("Norway", "the village", "the coast", "Chicago", "the valley", "Lisbon", "the islands")


def same_events(num: int, seed: int) -> list[str]:
    """Different rows in the words of a few events."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < num:
        deed = rng.choice(_DEEDS).format(thing=rng.choice(_OBJECTS), place=rng.choice(_PLACES))
        found[f"{rng.choice(_PEOPLE)} {deed}."] = None
    return list(found)
