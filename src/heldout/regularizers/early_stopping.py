"""Early stopping with rollback: the checkpoint of the lowest held-out loss is the result.

Two ways to stop: ``patience`` evaluations without a new low beyond ``min_delta`` (compared with
the best so far, so slow steady gains go on), or a rise that is certain: the paired interval of
current minus best, over the held-out groups, lies wholly above ``certain_rise``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from heldout.core.regularizer import Continue, Decision, Evaluation, Regularizer, Stop

SOURCE = "Prechelt 1998, Early stopping - but when?"
COST = "one evaluation pass each time; no step costs more"


@dataclass(frozen=True)
class EarlyStopping(Regularizer):
    """``patience`` counts evaluations; ``min_delta`` and ``certain_rise`` are nats per token."""

    patience: int = 3
    min_delta: float = 0.0
    certain_rise: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("patience", self.patience >= 1, "1 or more")
        self.require("min_delta", self.min_delta >= 0, "0 or more")

    def decide(self, history: Sequence[Evaluation]) -> Decision:
        losses = [evaluation.validation.nats_per_token for evaluation in history]
        reference, since = losses[0], 0
        for loss in losses[1:]:
            if loss < reference - self.min_delta:
                reference, since = loss, 0
            else:
                since += 1
        if since >= self.patience:
            return Stop(f"no new low of the held-out loss in {self.patience} evaluations")
        best = losses.index(min(losses))
        if best < len(losses) - 1 and history[-1].validation.num_groups >= 2:
            rise = history[-1].validation.minus(history[best].validation)
            if rise.interval.low > self.certain_rise:
                return Stop(
                    f"the held-out loss has certainly risen, by {rise.value:.3f} "
                    f"{rise.interval.brackets()} nats/token"
                )
        return Continue()
