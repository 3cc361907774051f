"""The contract of a probe: evidence in, measurements with controls out; it never trains."""

from dataclasses import dataclass, field

import numpy as np

from heldout.core.facts import Facts
from heldout.core.harness import HarnessScores
from heldout.core.landscape import Landscape
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.part_texts import PartTexts
from heldout.core.pass_statistics import CanaryLosses, Generations, PassStatistics, PersonalData
from heldout.core.prompt_pairs import PromptPairs
from heldout.core.verbatim import Corpora


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


@dataclass(frozen=True)
class Evidence:
    """What the passes over the texts have collected; whatever is missing was not measured.

    Keyed by (model, part). Model is base, best, last or fixed_epochs; ``best`` is the model that is
    judged, whatever trained it. Part is train, validation, test (held-out text), out_of_fold, or
    ``domain:NAME`` for other text.
    """

    losses: dict[tuple[str, str], DocumentLosses]
    scores: dict[tuple[str, str], TaskScores] = field(default_factory=dict)
    memorization: dict[tuple[str, str], VerbatimMemorization] = field(default_factory=dict)
    min_effect: float = 0.01  # nats per token
    statistics: dict[tuple[str, str], PassStatistics] = field(default_factory=dict)
    generations: dict[tuple[str, str], Generations] = field(default_factory=dict)
    prompt_pairs: dict[tuple[str, str], PromptPairs] = field(default_factory=dict)
    texts: dict[str, PartTexts] = field(default_factory=dict)  # by part, a sample of the rows
    corpora: Corpora | None = None  # held-out documents named by the row_index of generations
    canaries: dict[str, CanaryLosses] = field(default_factory=dict)  # by model
    personal_data: dict[str, PersonalData] = field(default_factory=dict)  # by part
    landscape: Landscape | None = None
    tasks: dict[tuple[str, str], HarnessScores] = field(default_factory=dict)  # by model and task
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Probe:
    """Base of all probes. The file's name is the probe's name; SOURCE and COST are literals."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        """Every number with interval and contrasts, or the reason why there is none."""
        raise TypeError(f"{type(self).__name__} must define measure().")
