"""Loss of planted secrets, beside others that could have been planted, under each model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from heldout.core.errors import UserError
from heldout.core.probe import Evidence
from heldout.data.canaries import Canary, canary_losses, candidate_rows
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.jobs.evidence.model_on_part import max_length_of
from heldout.lm.nll import document_losses


@dataclass(frozen=True)
class CanariesGatherer(Gatherer):
    """Adds ``CanaryLosses`` under the model."""

    planted: list[Canary]

    probes = ("exposure",)

    @classmethod
    def for_asked(cls, asked: Asked) -> Self | None:
        planted = read_canaries(asked.canaries) if asked.canaries else []
        return cls(planted) if planted else None

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        loaded = given.models[name]
        losses = document_losses(
            loaded.model,
            candidate_rows(self.planted, given.texts.train[0].kind),
            loaded.tokenizer,
            max_length=max_length_of(loaded, given.recipe),
            batch_size=given.recipe.eval.batch_size,
        )
        return evidence.adding(canary_losses(self.planted, losses), name)


def read_canaries(path: str) -> list[Canary]:
    """The secrets in the file that ``heldout check --plant-canaries`` wrote; else a UserError."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))["canaries"]
        return [Canary(**each) for each in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--canaries {path} is not what heldout check --plant-canaries writes ({error!r})."
        ) from None
