"""From the texts of all conditions to numbers with intervals: per text, so that runs can be joined.

The resampled unit is the context. Figures of seeds that continue different contexts are joined by
joining their texts; their intervals then hold for these trainings.
"""

# N contexts, T tokens, P blocks of positions

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from heldout.core.finite import finite
from heldout.core.human_band import HumanBand
from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.run import Run
from heldout.core.shares import share_estimate
from heldout.core.stats import (
    paired_difference,
    ratio_estimate,
)
from heldout.core.verbatim import VerbatimIndex
from heldout.jobs.hyperfitting.evaluate import MODELS, load_contexts, text_conditions
from heldout.jobs.hyperfitting.texts import Measures
from heldout.jobs.kit.token_size import saved_token_size
from heldout.lm.measuring.sharpness import Sharpness
from heldout.probes.fragments import covered_tokens, longest_match
from heldout.probes.templates import self_bleu

HUMAN = "human"
NUM_BLOCKS = 4  # of positions
COPIED_TOKENS = 5  # of English in a row: what counts as copied in the coverage

UNITS = {
    "ttr": "distinct tokens per token",
    "distinct_2": "distinct pairs per pair",
    "distinct_3": "distinct triples per triple",
    "seq_rep_4": "mean share of repeated 4-grams",
    "diversity": "product of unrepeated shares",
    "compression_ratio": "bytes per compressed byte",
    "self_bleu": "BLEU against the arm's other texts",
    "distance": "half widths of the human band",
    "overlap_train": "tokens of the longest match with the sample",
    "overlap_heldout": "tokens of the longest match with as much other text",
    "overlap_excess": "tokens, sample minus other text",
    "coverage_train": "share of tokens in matches of {copied} or more with the sample",
    "coverage_heldout": "share of tokens in matches of {copied} or more with other text",
}
_SHARES = {"inside_band": "share of texts", "passes_gate": "share of texts"}
_SHARP = {
    "nll": "nats/token",
    "entropy": "nats",
    "top_probability": "probability of the likeliest token",
    "accuracy": "share of tokens",
    "log_rank": "mean ln(1 + rank) of the true token",
}
_COMPARED = ("ttr", "seq_rep_4", "diversity", "compression_ratio", "distance", "overlap_train")
CONTROLS = ("base_greedy", "base_top_p", "early_stopped_greedy", "hyperfitted_greedy", HUMAN)


@dataclass(frozen=True)
class TextFigures:
    """Per context: figures of each condition's text, and sums over the true text by each model."""

    groups_N: np.ndarray
    new_tokens: int
    copied_tokens: int  # in a row
    conditions: dict[str, dict[str, np.ndarray]]  # condition -> figure -> (N,)
    models: dict[str, dict[str, np.ndarray]]  # model -> figure -> (N,) sums over new_tokens
    new_types: dict[str, np.ndarray]  # condition -> (N, P) share of tokens new to their text
    repeats: dict[str, np.ndarray]  # condition -> (N, P) share of 4-grams that came before
    entropies: dict[str, np.ndarray]  # model -> (N, P) mean entropy
    all_entropies: dict[str, np.ndarray]  # model -> every token's

    def __len__(self) -> int:
        return len(self.groups_N)

    @classmethod
    def of(cls, run: Run) -> "TextFigures":
        """Of one finished evaluation."""
        contexts, recipe = load_contexts(run), run.recipe
        written = run.read_json("contexts.json")
        texts = {HUMAN: (contexts.references, written["reference_texts"])}
        for condition in text_conditions(recipe):
            entry = run.read_json(f"texts/{condition.name}.json")
            texts[condition.name] = (entry["ids"], entry["texts"])
        sample = run.read_json("sample.json")
        copied = saved_token_size(run).tokens(COPIED_TOKENS)
        trained, control = (VerbatimIndex.build(sample[part]) for part in ("trained", "control"))
        measures = {name: Measures.of(*each) for name, each in texts.items()}
        band = HumanBand.of(measures[HUMAN].compared, measures[HUMAN].repetition)
        conditions = {
            name: _figures(measures[name], ids, band, trained, control, copied)
            for name, (ids, _) in texts.items()
        }
        sharp = {name: Sharpness.load(run.path(f"sharpness/{name}.npz")) for name in MODELS}
        return cls(
            np.array([f"{run.folder.name} {group}" for group in contexts.groups]),
            recipe.hyperfit.new_tokens,
            copied,
            conditions,
            {name: _sums(each) for name, each in sharp.items()},
            {name: np.array([new_types(i) for i in ids]) for name, (ids, _) in texts.items()},
            {name: np.array([repeats(i) for i in ids]) for name, (ids, _) in texts.items()},
            {name: _by_block(each, recipe.hyperfit.new_tokens) for name, each in sharp.items()},
            {name: each.entropy_N for name, each in sharp.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence["TextFigures"]) -> "TextFigures":
        """Of several runs with the same conditions."""

        def join(name: str) -> dict[str, Any]:
            first = getattr(parts[0], name)
            return {key: np.concatenate([getattr(p, name)[key] for p in parts]) for key in first}

        def join_two(name: str) -> dict[str, dict[str, np.ndarray]]:
            first = getattr(parts[0], name)
            return {
                key: {k: np.concatenate([getattr(p, name)[key][k] for p in parts]) for k in inner}
                for key, inner in first.items()
            }

        assert len({part.new_tokens for part in parts}) == 1, "texts of one length"
        assert len({part.copied_tokens for part in parts}) == 1, "tokens of one size"
        return cls(
            np.concatenate([part.groups_N for part in parts]),
            parts[0].new_tokens,
            parts[0].copied_tokens,
            join_two("conditions"),
            join_two("models"),
            *(join(name) for name in ("new_types", "repeats", "entropies", "all_entropies")),
        )

    def measurements(self) -> list[Measurement | NotMeasured]:
        """``FIGURE_CONDITION`` and ``FIGURE_MODEL``, with paired differences to the controls."""
        found: list[Measurement | NotMeasured] = []
        ones = np.ones(len(self))
        for condition, figures in self.conditions.items():
            for name, unit in UNITS.items():
                unit = unit.format(copied=self.copied_tokens)
                compared = name in _COMPARED
                controls = {
                    control: self.conditions[control][name]
                    for control in CONTROLS
                    if compared and control != condition
                }
                found.append(
                    self._measured(f"{name}_{condition}", unit, figures[name], ones, controls)
                )
            found += [
                self._share(f"{name}_{condition}", unit, figures[name])
                for name, unit in _SHARES.items()
            ]
            longest = float(figures["overlap_train"].max())
            found.append(
                Measurement(
                    f"longest_copy_{condition}",
                    longest,
                    "tokens, of the longest match of all texts with the sample",
                    self.num_groups,
                    "context",
                    note="a maximum, which has no interval",
                )
            )
        tokens = ones * self.new_tokens
        for model, sums in self.models.items():
            for name, unit in _SHARP.items():
                controls = {"base": self.models["base"][name]} if model != "base" else {}
                found.append(
                    self._measured(f"{name}_{_SUBJECT[model]}", unit, sums[name], tokens, controls)
                )
        found += [
            NotMeasured(
                "mauve",
                "needs the package mauve-text and the weights of gpt2-large, which are not here",
            ),
            NotMeasured("base_contrastive_search", contrastive_reason()),
        ]
        return found

    @property
    def num_groups(self) -> int:
        return len(np.unique(self.groups_N))

    def positions(self) -> list[dict[str, Any]]:
        """By block of the continuation: new types and repeats of conditions, entropy of models."""
        edges, ones = block_edges(self.new_tokens), np.ones(len(self))
        found = []
        for figure, parts in (
            ("new_types", self.new_types),
            ("repeats", self.repeats),
            ("entropy", {_SUBJECT[name]: each for name, each in self.entropies.items()}),
        ):
            for subject, values_NP in parts.items():
                for place in range(NUM_BLOCKS):
                    estimate = ratio_estimate(values_NP[:, place], ones, self.groups_N)
                    found.append(
                        {
                            "figure": figure,
                            "subject": subject,
                            "from": int(edges[place]),
                            "to": int(edges[place + 1]),
                            "value": estimate.value,
                            "low": finite(estimate.interval.low),
                            "high": finite(estimate.interval.high),
                        }
                    )
        return found

    def _measured(
        self,
        name: str,
        unit: str,
        values_N: np.ndarray,
        weights_N: np.ndarray,
        controls: Mapping[str, np.ndarray],
    ) -> Measurement:
        level = ratio_estimate(values_N, weights_N, self.groups_N)
        contrasts: dict[str, Contrast] = {
            control: paired_difference(values_N, other_N, weights_N, self.groups_N).as_contrast()
            for control, other_N in controls.items()
        }
        return Measurement(
            name, level.value, unit, level.num_groups, "context", level.interval, contrasts
        )

    def _share(self, name: str, unit: str, values_N: np.ndarray) -> Measurement:
        share, interval = share_estimate(values_N, self.groups_N)
        return Measurement(name, share, unit, self.num_groups, "context", interval)


_SUBJECT = {"base": "base", "early_stopped": "early_stopped", "best": "hyperfitted"}


def contrastive_reason() -> str:
    """Why contrastive search is missing, from what the installed transformers can do."""
    from transformers import GenerationMixin

    assert not hasattr(GenerationMixin, "_contrastive_search"), (
        "it has come back: add the condition"
    )
    return (
        "transformers has moved contrastive search to a repository of its own code, which would "
        "run here; no remote code is run"
    )


def block_edges(num_tokens: int) -> np.ndarray:
    """(P + 1,) first tokens of the blocks of positions, and the end."""
    return np.linspace(0, num_tokens, NUM_BLOCKS + 1).astype(int)


def new_types(ids: Sequence[int]) -> np.ndarray:
    """(P,) share of each block's tokens that come for the first time; their mean is the TTR."""
    seen: set[int] = set()
    first = []
    for token in ids:
        first.append(token not in seen)
        seen.add(token)
    edges = block_edges(len(ids))
    return np.array([np.mean(first[a:b]) for a, b in pairwise(edges)])


def repeats(ids: Sequence[int], n: int = 4) -> np.ndarray:
    """(P,) share of the n-grams ending in each block that the text has had before."""
    seen: set[tuple[int, ...]] = set()
    again = []
    for end in range(n, len(ids) + 1):
        gram = tuple(ids[end - n : end])
        again.append(gram in seen)
        seen.add(gram)
    edges = np.maximum(block_edges(len(ids)) - (n - 1), 0)
    return np.array([np.mean(again[a:b]) for a, b in pairwise(edges)])


def _figures(
    measures: Measures,
    ids: Sequence[Sequence[int]],
    band: HumanBand,
    trained: VerbatimIndex,
    control: VerbatimIndex,
    copied: int,
) -> dict[str, np.ndarray]:
    matches = {
        name: [lengths for lengths, _ in index.matches_of(ids)]
        for name, index in (("train", trained), ("heldout", control))
    }
    found = {
        "ttr": measures.ttr,
        "distinct_2": measures.distinct_2,
        "distinct_3": measures.distinct_3,
        "seq_rep_4": measures.repetition,
        "diversity": measures.diversity,
        "compression_ratio": measures.compression,
        "self_bleu": self_bleu(ids),
        "distance": band.distance(measures.compared),
        "inside_band": band.inside(measures.compared, measures.repetition),
        "passes_gate": band.passes(measures.repetition),
    }
    for name, lengths in matches.items():
        found[f"overlap_{name}"] = np.array([longest_match(each) for each in lengths], dtype=float)
        found[f"coverage_{name}"] = np.array(
            [covered_tokens(each, copied) / len(each) for each in lengths]
        )
    found["overlap_excess"] = found["overlap_train"] - found["overlap_heldout"]
    return found


def _sums(found: Sharpness) -> dict[str, np.ndarray]:
    values = {
        "nll": found.nats_N,
        "entropy": found.entropy_N,
        "top_probability": found.top_N,
        "accuracy": (found.rank_N == 0).astype(float),
        "log_rank": np.log1p(found.rank_N),
    }
    return {name: found.per_window(each) for name, each in values.items()}


def _by_block(found: Sharpness, num_tokens: int) -> np.ndarray:
    entropy_NT = found.entropy_N.reshape(-1, num_tokens)
    edges = block_edges(num_tokens)
    return np.stack([entropy_NT[:, a:b].mean(1) for a, b in pairwise(edges)], axis=1)
