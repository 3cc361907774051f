"""The base model's losses of answers after their own prompts and after prompts of other rows."""

import random
from dataclasses import dataclass

from heldout.core.other_prompts import OtherPrompts
from heldout.core.probe import Evidence
from heldout.data.other_prompts import foreign_prompts
from heldout.jobs.evidence.gatherer import Gatherer, Given
from heldout.jobs.evidence.model_on_part import max_length_of
from heldout.lm.nll import document_losses

MOST_ROWS = 50  # of a part


@dataclass(frozen=True)
class OtherPromptsGatherer(Gatherer):
    """Adds ``OtherPrompts`` of the base model under the part; nothing where rows have no prompts.

    Costs a pass of the base model over up to 50 rows a part.
    """

    probes = ("swapped_answers",)
    stage = "reading"

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        if given.control is None:
            return evidence
        for part in ("train", "test"):
            found = _read(part, evidence, given)
            if found is not None:
                evidence = evidence.adding(found, part)
        return evidence


def _read(part: str, evidence: Evidence, given: Given) -> OtherPrompts | None:
    control, recipe, rows = given.control, given.recipe, given.parts[part]
    assert control is not None, "asked for by of_all only where there is one"
    others = [each[0] if each else None for each in foreign_prompts(rows, 1, recipe.data.seed)]
    places = [place for place, other in enumerate(others) if other is not None]
    if len(places) > MOST_ROWS:
        places = sorted(random.Random(recipe.data.seed).sample(places, MOST_ROWS))
    if not places:
        return None
    read = document_losses(
        control.model,
        [other for place in places if (other := others[place]) is not None],
        control.tokenizer,
        max_length=max_length_of(control, recipe),
        batch_size=recipe.eval.batch_size,
    )
    own = evidence.losses["base", part].at(places)
    # A long prompt may push a part of the answer out of the window.
    same_D = own.num_tokens_D == read.num_tokens_D
    return OtherPrompts(own.nll_nats_D[same_D], read.nll_nats_D[same_D], own.groups_D[same_D])
