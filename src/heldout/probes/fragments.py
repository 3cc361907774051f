"""Fragments: how much generated text is copied word for word from training text, out of context.

The prompts are held-out, so no copy of a training text is called for. Stock phrases match any text,
so the controls are as much held-out text (without the document that is being continued) and what
the base model writes after the same prompts. The contrast to held-out text compares equal amounts
of text; the contrast to the base model is that difference, minus the same of the base model.
"""

# P prompts, T tokens

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heldout.core.equal_lengths import HUMAN, EqualLengths, equal_lengths, too_few
from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.stats import paired_difference, ratio_estimate
from heldout.core.verbatim import Corpora, VerbatimIndex

SOURCE = "Aerni et al. 2024, arXiv 2411.10242; matches by suffix array: Manber and Myers 1993"
COST = "one suffix array over the training tokens, 12 bytes each; no forward pass"


@dataclass(frozen=True)
class Fragments(Probe):
    """Mean longest match, and the share of tokens in matches of ``least_tokens`` or more.

    ``least_tokens`` hold about 50 letters of English; of smaller tokens as many as hold as much.
    """

    least_tokens: int = 12

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        corpora = evidence.get(Corpora)
        if corpora is None or not corpora.train.num_tokens or not corpora.heldout.num_tokens:
            reason = "needs training and held-out text that generated text is searched in"
            return [NotMeasured("fragment_longest_best", reason)]
        for model in MODELS:
            beside = equal_lengths(evidence, model)
            if beside is not None:
                least = evidence.token_size.tokens(self.least_tokens)
                found += self._of(model, beside, corpora, least)
            elif model == "best":
                found += [
                    too_few("fragment_longest_best", evidence),
                    too_few("fragment_coverage_best", evidence),
                ]
        return found

    def _of(
        self, model: str, beside: EqualLengths, corpora: Corpora, least: int
    ) -> list[Measurement]:
        matched = {
            writer: _Matched.of(ids, beside.row_index_P, corpora)
            for writer, ids in beside.ids.items()
            if writer != HUMAN
        }
        tokens = beside.lengths_P.astype(np.float64)

        def of_texts(lengths: list[np.ndarray]) -> np.ndarray:
            return np.array([longest_match(lengths_T) for lengths_T in lengths], dtype=np.float64)

        def covered(lengths: list[np.ndarray]) -> np.ndarray:
            return np.array([covered_tokens(lengths_T, least) for lengths_T in lengths])

        longest = {writer: found.per_corpus(of_texts) for writer, found in matched.items()}
        coverage = {writer: found.per_corpus(covered) for writer, found in matched.items()}
        groups = beside.groups_P
        searched = f"{corpora.train.num_tokens} training tokens"
        note = f"in {searched}{'' if corpora.complete else ', not all of them'}"
        return [
            _measured(
                f"fragment_longest_{model}", "tokens", longest, np.ones(len(tokens)), groups, note
            ),
            _measured(
                f"fragment_coverage_{model}",
                f"share of tokens in matches of {least} or more",
                coverage,
                tokens,
                groups,
                note,
            ),
        ]


def longest_match(lengths_T: np.ndarray) -> int:
    """Tokens of the longest match of a text, from the lengths that ``VerbatimIndex`` returns."""
    return int(lengths_T.max(initial=0))


def covered_tokens(lengths_T: np.ndarray, least: int) -> int:
    """How many tokens of a text lie in some match of ``least`` tokens or more."""
    starts = np.flatnonzero(lengths_T >= least)
    change = np.zeros(len(lengths_T) + 1, dtype=np.int64)
    np.add.at(change, starts, 1)
    np.add.at(change, starts + lengths_T[starts], -1)
    return int((np.cumsum(change) > 0).sum())


@dataclass(frozen=True)
class _Matched:
    """Match lengths of each text in each corpus."""

    train: list[np.ndarray]
    train_sample: list[np.ndarray]
    heldout: list[np.ndarray]

    @classmethod
    def of(cls, ids: list[np.ndarray], rows: np.ndarray, corpora: Corpora) -> "_Matched":
        def lengths(index: VerbatimIndex, without: list[int] | None = None) -> list[np.ndarray]:
            return [found for found, _ in index.matches_of(ids, without)]

        return cls(
            lengths(corpora.train),
            lengths(corpora.train_sample),
            lengths(corpora.heldout, rows.tolist()),
        )

    def per_corpus(self, figure: Callable[[list[np.ndarray]], np.ndarray]) -> dict[str, np.ndarray]:
        return {
            "train": figure(self.train),
            "excess": figure(self.train_sample) - figure(self.heldout),
        }


def _measured(
    name: str,
    unit: str,
    figures: dict[str, dict[str, np.ndarray]],
    weights: np.ndarray,
    groups: np.ndarray,
    note: str,
) -> Measurement:
    own, *others = figures.values()
    level = ratio_estimate(own["train"], weights, groups)
    contrasts: dict[str, Contrast] = {
        "heldout": ratio_estimate(own["excess"], weights, groups, signed=True).as_contrast()
    }
    for base in others:
        contrasts["base"] = paired_difference(
            own["excess"], base["excess"], weights, groups
        ).as_contrast()
    return level.as_measurement(name, unit, "group of prompts", contrasts, note)
