"""How much worse the model is on unseen text than on the rows it trained on.

The base model's own gap is the control: it tells how much harder the held-out rows are anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.stats import difference_of_ratios

SOURCE = "difference of two independent group means; the base model's gap as control"
COST = "nothing beyond the passes of heldout_loss and one over training rows"


@dataclass(frozen=True)
class GeneralizationGap(Probe):
    """Held-out minus training loss in nats per token and bits per byte, both without dropout."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            train = evidence.losses.get((model, "train"))
            test = evidence.losses.get((model, "test"))
            if train is None or test is None or min(train.num_groups, test.num_groups) < 2:
                continue
            base_train = evidence.losses.get(("base", "train")) if model != "base" else None
            base_test = evidence.losses.get(("base", "test"))
            for name, unit, scale, sizes in _UNITS:
                value, interval = _difference(test, train, scale, sizes)
                contrasts = {}
                if base_train is not None and base_test is not None:
                    saved_test = _minus(test, base_test)
                    saved_train = _minus(train, base_train)
                    contrasts["base"] = Contrast(
                        *_difference(saved_test, saved_train, scale, sizes)
                    )
                found.append(
                    Measurement(
                        name=f"{name}_{model}",
                        value=value,
                        unit=unit,
                        num_units=test.num_groups,
                        resampled_unit="group of rows",
                        interval=interval,
                        contrasts=contrasts,
                    )
                )
        return found or [
            NotMeasured("generalization_gap_best", "needs training and test rows of 2 groups each")
        ]


def _tokens(losses: DocumentLosses) -> np.ndarray:
    return losses.num_tokens_D


def _bytes(losses: DocumentLosses) -> np.ndarray:
    return losses.num_bytes_D


_UNITS = (
    ("generalization_gap", "nats/token", 1.0, _tokens),
    ("generalization_gap_bits_per_byte", "bits/byte", 1 / np.log(2), _bytes),
)


def _difference(
    heldout: DocumentLosses,
    train: DocumentLosses,
    scale: float,
    sizes: Callable[[DocumentLosses], np.ndarray],
) -> tuple[float, Interval]:
    return difference_of_ratios(
        (heldout.nll_nats_D * scale, sizes(heldout), heldout.groups_D),
        (train.nll_nats_D * scale, sizes(train), train.groups_D),
    )


def _minus(losses: DocumentLosses, control: DocumentLosses) -> DocumentLosses:
    return replace(losses, nll_nats_D=losses.nll_nats_D - control.nll_nats_D)
