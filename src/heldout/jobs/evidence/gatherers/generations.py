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
        rows, keys = given.texts.heldout, given.keys(name)
        written = given.kept.written(keys, rows) if keys else None
        if written is None:
            written = write_part(given.models[name], rows, given.recipe, given.size)
        given.progress.advance(1, name)
        return replace(evidence, generations={**evidence.generations, (name, "test"): written})

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        control = given.control
        if control is None:
            return evidence
        written = evidence.generations
        scored = with_nats(list(written.values()), control.model, control.tokenizer)
        return replace(evidence, generations=dict(zip(written, scored, strict=True)))
