"""How much worse the model is on unseen text than on the rows it trained on.

The base model's own gap is the control: it tells how much harder the held-out rows are anyway.
"""

from dataclasses import dataclass

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import difference_of_ratios

SOURCE = "difference of two independent group means; the base model's gap as control"
COST = "nothing beyond the passes of heldout_loss and one over training rows"


@dataclass(frozen=True)
class GeneralizationGap(Probe):
    """Held-out minus training loss in nats per token, both without dropout."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in ("base", "last", "fixed_epochs", "best"):
            train = evidence.losses.get((model, "train"))
            test = evidence.losses.get((model, "test"))
            if train is None or test is None or min(train.num_groups, test.num_groups) < 2:
                continue
            value, interval = _difference(test, train)
            contrasts = {}
            base_train = evidence.losses.get(("base", "train"))
            base_test = evidence.losses.get(("base", "test"))
            if model != "base" and base_train is not None and base_test is not None:
                change, change_interval = difference_of_ratios(
                    (
                        test.nll_nats_D - base_test.nll_nats_D,
                        test.num_tokens_D,
                        test.groups_D,
                    ),
                    (
                        train.nll_nats_D - base_train.nll_nats_D,
                        train.num_tokens_D,
                        train.groups_D,
                    ),
                )
                contrasts["base"] = Contrast(change, change_interval)
            found.append(
                Measurement(
                    name=f"generalization_gap_{model}",
                    value=value,
                    unit="nats/token",
                    num_units=test.num_groups,
                    resampled_unit="group of rows",
                    interval=interval,
                    contrasts=contrasts,
                )
            )
        return found or [
            NotMeasured("generalization_gap_best", "needs training and test rows of 2 groups each")
        ]


def _difference(heldout: DocumentLosses, train: DocumentLosses) -> tuple[float, Interval]:
    return difference_of_ratios(
        (heldout.nll_nats_D, heldout.num_tokens_D, heldout.groups_D),
        (train.nll_nats_D, train.num_tokens_D, train.groups_D),
    )
