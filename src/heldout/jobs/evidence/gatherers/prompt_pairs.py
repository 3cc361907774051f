"""How far each model's answers move when the beginnings of held-out rows are reworded."""

from dataclasses import dataclass
from typing import Self

from heldout.core.probe import Evidence
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.lm.measuring.generations import PROMPT_TOKENS
from heldout.lm.measuring.prompt_pairs import ANSWER_TOKENS, prompt_pairs

NUM_REWORDED = 24


@dataclass(frozen=True)
class PromptPairsGatherer(Gatherer):
    """Adds ``PromptPairs`` under the model and the part."""

    probes = ("prompt_sensitivity",)
    stage = "writing"

    @classmethod
    def for_asked(cls, asked: Asked) -> Self | None:
        return cls() if asked.generate else None

    def num_steps(self, given: Given) -> int:
        return len(given.models)

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        loaded = given.models[name]
        found = prompt_pairs(
            loaded.model,
            loaded.tokenizer,
            given.texts.heldout,
            num_prompts=NUM_REWORDED,
            prompt_tokens=given.size.tokens(PROMPT_TOKENS),
            answer_tokens=given.size.tokens(ANSWER_TOKENS),
            seed=given.recipe.data.seed,
        )
        given.progress.advance(1, name)
        return evidence.adding(found, name, "test")
