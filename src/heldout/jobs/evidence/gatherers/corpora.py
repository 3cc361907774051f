"""Training and held-out text, indexed so that generated text can be searched in it."""

from dataclasses import dataclass
from typing import Self

from heldout.core.probe import Evidence
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.lm.measuring.corpora import corpora


@dataclass(frozen=True)
class CorporaGatherer(Gatherer):
    """Adds ``Corpora``, of all training rows and of the held-out sample."""

    probes = ("fragments",)
    stage = "writing"

    @classmethod
    def for_asked(cls, asked: Asked) -> Self | None:
        return cls() if asked.generate else None

    def num_steps(self, given: Given) -> int:
        return 1

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        texts, seed = given.texts, given.recipe.data.seed
        found = corpora(texts.all_train(), texts.heldout, given.judged.tokenizer, seed=seed)
        given.progress.advance(1, "searching")
        return evidence.adding(found)
