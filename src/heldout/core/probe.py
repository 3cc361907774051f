"""The contract of a probe: evidence in, measurements with controls out; it never trains."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from heldout.core.facts import Facts
from heldout.core.harness import HarnessScores
from heldout.core.landscape import LossLandscape
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.part_texts import PartTexts
from heldout.core.pass_statistics import CanaryLosses, Generations, PassStatistics, PersonalData
from heldout.core.prompt_pairs import PromptPairs
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.core.verbatim import Corpora

T = TypeVar("T")

MODELS = ("base", "last", "fixed_epochs", "best")


@dataclass(frozen=True)
class TaskScores:
    """The user's metric per document; higher is better."""

    metric: str
    scores_D: np.ndarray
    groups_D: np.ndarray


@dataclass(frozen=True)
class VerbatimMemorization:
    """Which rows a model continues word for word; rows too short to tell are left out."""

    memorized_D: np.ndarray
    groups_D: np.ndarray
    row_index_D: np.ndarray

    def __len__(self) -> int:
        return len(self.memorized_D)

    @classmethod
    def of(cls, found: PassStatistics) -> "VerbatimMemorization":
        """By the short suffix (20 tokens after 10), of the rows that are long enough."""
        short = found.suffixes["short"]
        can_tell_D = np.isfinite(short.nats_D)
        return cls(
            short.greedy_D[can_tell_D],
            found.losses.groups_D[can_tell_D].astype(str),
            found.row_index_D[can_tell_D],
        )


@dataclass(frozen=True)
class Evidence:
    """What the passes over the texts have collected; whatever is missing was not measured.

    Keyed by (model, part). Model is base, best, last or fixed_epochs; ``best`` is the model that is
    judged, whatever trained it. Part is train, validation, test (held-out text), out_of_fold, or
    ``domain:NAME`` for other text.

    What several probes read has a field. All else, of any class, is added with ``adding`` and read
    with ``get``, under a key of its own: the model, the model and the part, or nothing.
    """

    losses: dict[tuple[str, str], DocumentLosses]
    scores: dict[tuple[str, str], TaskScores] = field(default_factory=dict)
    memorization: dict[tuple[str, str], VerbatimMemorization] = field(default_factory=dict)
    min_effect: float = 0.01  # nats per token
    statistics: dict[tuple[str, str], PassStatistics] = field(default_factory=dict)
    generations: dict[tuple[str, str], Generations] = field(default_factory=dict)
    texts: dict[str, PartTexts] = field(default_factory=dict)  # by part, a sample of the rows
    facts: Facts = field(default_factory=Facts)
    added: Mapping[type, Mapping[tuple[str, ...], Any]] = field(default_factory=dict)

    def adding(self, found: object, *key: str) -> "Evidence":
        """The same with ``found`` under its class and ``key``."""
        of_kind = {**self.added.get(type(found), {}), key: found}
        return replace(self, added={**self.added, type(found): of_kind})

    def get(self, kind: type[T], *key: str) -> T | None:
        """What was added of this class under ``key``; None where it was not measured."""
        return self.added.get(kind, {}).get(key)

    def every(self, kind: type[T]) -> dict[Any, T]:
        """All that was added of this class, by key, a tuple of strings."""
        return dict(self.added.get(kind, {}))

    # By name, as probes of other packages read them.

    @property
    def prompt_pairs(self) -> dict[tuple[str, str], PromptPairs]:
        """By model and part."""
        return self.every(PromptPairs)

    @property
    def token_size(self) -> TokenSize:
        """How much a token of the judged model holds; that of English where it is not known."""
        return self.get(TokenSize) or ENGLISH_TOKENS

    @property
    def corpora(self) -> Corpora | None:
        """Held-out documents are named by the row_index of generations."""
        return self.get(Corpora)

    @property
    def canaries(self) -> dict[str, CanaryLosses]:
        """By model."""
        return {model: found for (model,), found in self.every(CanaryLosses).items()}

    @property
    def personal_data(self) -> dict[str, PersonalData]:
        """By part."""
        return {part: found for (part,), found in self.every(PersonalData).items()}

    @property
    def landscape(self) -> LossLandscape | None:
        return self.get(LossLandscape)

    @property
    def tasks(self) -> dict[tuple[str, str], HarnessScores]:
        """By model and task."""
        return self.every(HarnessScores)


@dataclass(frozen=True)
class Probe:
    """Base of all probes. The file's name is the probe's name; SOURCE and COST are literals."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        """Every number with interval and contrasts, or the reason why there is none."""
        raise TypeError(f"{type(self).__name__} must define measure().")
