"""How the loss lies around the weights of the judged model and on the way from the control."""

from dataclasses import dataclass

from heldout.core.probe import Evidence
from heldout.jobs.evidence.gatherer import Gatherer, Given
from heldout.jobs.evidence.model_on_part import max_length_of
from heldout.lm.measuring.landscape import landscape

NUM_ROWS = 32  # of each part


@dataclass(frozen=True)
class LandscapeGatherer(Gatherer):
    """Adds ``LossLandscape``."""

    probes = ("landscape",)
    stage = "landscape"

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        judged, control = given.judged, given.control
        found = landscape(
            judged.model,
            control.model if control else None,
            judged.tokenizer,
            given.texts.train[:NUM_ROWS],
            given.texts.heldout[:NUM_ROWS],
            max_length=max_length_of(judged, given.recipe),
            batch_size=given.recipe.eval.batch_size,
            seed=given.recipe.data.seed,
            known={
                key: losses.at(range(min(NUM_ROWS, len(losses))))
                for key, losses in evidence.losses.items()
                if key[1] in ("train", "test")
            },
        )
        return evidence.adding(found)
