"""What each model writes after the beginnings of held-out rows, with its loss under the base."""

from dataclasses import dataclass, replace
from typing import Self

from heldout.core.probe import Evidence
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.jobs.evidence.model_on_part import write_part
from heldout.lm.measuring.generations import with_nats


@dataclass(frozen=True)
class GenerationsGatherer(Gatherer):
    """Fills ``generations``, which all probes of generated text share."""

    stage = "writing"

    @classmethod
    def for_asked(cls, asked: Asked) -> Self | None:
        return cls() if asked.generate else None

    def num_steps(self, given: Given) -> int:
        return len(given.models)

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        written = write_part(given.models[name], given.texts.heldout, given.recipe, given.size)
        given.progress.advance(1, name)
        return replace(evidence, generations={**evidence.generations, (name, "test"): written})

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        control = given.control
        if control is None:
            return evidence
        scored = {
            key: with_nats(written, control.model, control.tokenizer)
            for key, written in evidence.generations.items()
        }
        return replace(evidence, generations=scored)
