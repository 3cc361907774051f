"""Noise: misspellings of the training text, and none of the held-out text, that outputs repeat.

What counts as noise is decided by training and held-out text alone, before any output is looked
at, so that the base model, which never saw them, is a fair control.
"""

# P prompts

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from heldout.core.equal_lengths import HUMAN, compared_means, equal_lengths, too_few
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.part_texts import PartTexts
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.segments import WORD

SOURCE = "heldout; one-edit neighbors: Damerau 1964"
COST = "one pass over the words of the training and held-out samples"

LEAST_GROUPS = 3  # of training rows that a noise word stands in
LEAST_LETTERS = 4
TIMES_RARER = 3  # than the word that it looks like


@dataclass(frozen=True)
class Noise(Probe):
    """Share of the words written that are noise words: misspelled, stretched, or named."""

    words: tuple[str, ...] = ()  # slang that the user names; counts where held-out text lacks it

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        train, heldout = evidence.texts.get("train"), evidence.texts.get("test")
        if train is None or heldout is None:
            return [NotMeasured("noise_rate_best", "needs training and held-out text to compare")]
        noise = noise_words(train, heldout, self.words)
        if not noise:
            return [
                NotMeasured(
                    "noise_rate_best",
                    f"no misspelled or stretched word in {LEAST_GROUPS} groups of training rows "
                    "that held-out text lacks; other slang, and Chinese, must be named",
                )
            ]
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            beside = equal_lengths(evidence, model)
            if beside is None:
                if model == "best":
                    found.append(too_few("noise_rate_best", evidence))
                continue
            rates, num_words = {}, np.zeros(0)
            for writer, texts in beside.texts.items():
                if writer == HUMAN:  # held-out text has none by definition
                    continue
                counted = [_words(text, self.words) for text in texts]
                own = np.array([len(words) for words in counted], dtype=np.float64)
                hits = np.array([sum(word in noise for word in words) for words in counted])
                rates[writer] = hits / np.maximum(own, 1)
                if writer == model:
                    num_words = own
            if not num_words.sum():
                continue
            shown = ", ".join(sorted(noise)[:5])
            found.append(
                compared_means(
                    f"noise_rate_{model}",
                    "share of words",
                    rates,
                    beside.groups_P,
                    model,
                    num_words,
                    f"{len(noise)} noise words of the training text, such as {shown}",
                )
            )
        return found


def noise_words(train: PartTexts, heldout: PartTexts, named: Sequence[str] = ()) -> frozenset[str]:
    """Words in ``LEAST_GROUPS`` groups of training rows, in no held-out row, that look wrong.

    Stretched: a letter three times in a row. Misspelled: four letters or more, one edit in the
    inside (a letter changed, left out, put in, or two swapped) away from a word that is more than
    ``TIMES_RARER`` times as frequent in both texts together; endings stay, since one letter there
    is grammar. Or ``named``. Rare names that resemble a common word count too: the base model,
    which has the same chance to write them, is the control.
    """
    frequency: Counter[str] = Counter()
    unseen = {word for text in heldout.texts for word in _words(text, named)}
    groups_of: dict[str, set[str]] = {}
    for part in (train, heldout):
        for text, group in zip(part.texts, part.groups_D.tolist(), strict=True):
            words = _words(text, named)
            frequency.update(words)
            if part is train:
                for word in set(words) - unseen:
                    groups_of.setdefault(word, set()).add(group)
    candidates = [word for word, groups in groups_of.items() if len(groups) >= LEAST_GROUPS]
    given = {word.casefold() for word in named}
    return frozenset(
        word
        for word in candidates
        if word in given
        or _stretched(word)
        or any(frequency[near] > TIMES_RARER * frequency[word] for near in _inner_edits(word))
    )


def _words(text: str, named: Sequence[str] = ()) -> list[str]:
    folded = text.casefold()
    found = [match[0] for match in WORD.finditer(folded)]
    for word in named:
        if not WORD.fullmatch(word):  # of several characters or words, such as Chinese slang
            found += [word.casefold()] * folded.count(word.casefold())
    return found


def _stretched(word: str) -> bool:
    return word.isalpha() and any(
        a == b == c for a, b, c in zip(word, word[1:], word[2:], strict=False)
    )


def _inner_edits(word: str) -> Iterable[str]:
    """Words one edit away that begin and end as the word does."""
    if len(word) < LEAST_LETTERS or not word.isalpha():
        return
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz") | set(word))
    for place in range(1, len(word)):
        for letter in letters:
            yield word[:place] + letter + word[place:]
    for place in range(1, len(word) - 1):
        yield word[:place] + word[place + 1 :]
        if place < len(word) - 2 and word[place] != word[place + 1]:
            yield word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        for letter in letters:
            if letter != word[place]:
                yield word[:place] + letter + word[place + 1 :]
