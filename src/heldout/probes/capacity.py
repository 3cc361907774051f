"""Capacity: bits that the model has stored of its training rows, beside what it could store.

Information in the data is what the base model cannot predict of it. What training saves of it,
beyond what it saves on text that it never saw, is memorized; the rest is generalization.
"""

# D documents

from dataclasses import dataclass

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import LEAST_TO_RESAMPLE, difference_of_ratios

SOURCE = "Morris et al. 2025, arXiv 2505.24832: about 3.6 bits per trained parameter at most"
COST = "nothing beyond one forward pass over training and held-out rows"

BITS_PER_PARAMETER = 3.6
NATS_PER_BIT = float(np.log(2))


@dataclass(frozen=True)
class Capacity(Probe):
    """Information, memorized bits, bits per trained parameter, and information over capacity."""

    bits_per_parameter: float = BITS_PER_PARAMETER

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        parts = [
            evidence.losses.get(key)
            for key in (("base", "train"), ("best", "train"), ("base", "test"), ("best", "test"))
        ]
        base_train, best_train, base_test, best_test = parts
        if base_train is None:
            return [_missing("information_bits", "the base model's loss on training rows")]
        if base_train.num_groups < LEAST_TO_RESAMPLE:
            few = f"training rows of {LEAST_TO_RESAMPLE} groups, has {base_train.num_groups}"
            return [_missing("information_bits", few)]
        # Where only a sample of the rows was measured, the whole is as many times as large.
        whole_tokens = max(evidence.facts.num_train_tokens or 0, int(base_train.num_tokens_D.sum()))
        estimate = base_train.estimate()
        information = _measurement(
            "information_bits",
            estimate.value,
            estimate.interval,
            whole_tokens / NATS_PER_BIT,
            "bits",
            base_train.num_groups,
        )
        found: list[Measurement | NotMeasured] = [information]
        parameters = evidence.facts.trained_parameters
        if parameters:
            found.append(self._load(information, parameters))
        else:
            found.append(_missing("capacity_load", "the number of trained parameters"))
        if best_train is None or base_test is None or best_test is None:
            wanted = "losses of base and tuned model on training and held-out rows"
            return [*found, _missing("memorized_bits_best", wanted)]
        if base_test.num_groups < LEAST_TO_RESAMPLE:
            few = f"held-out rows of {LEAST_TO_RESAMPLE} groups, has {base_test.num_groups}"
            return [*found, _missing("memorized_bits_best", few)]
        value, interval = memorized_nats_per_token(base_train, best_train, base_test, best_test)
        groups = min(base_train.num_groups, base_test.num_groups)
        scale = whole_tokens / NATS_PER_BIT
        found.append(
            _measurement(
                "memorized_bits_best", value, interval, scale, "bits", groups, heldout=True
            )
        )
        if parameters:
            found.append(
                _measurement(
                    "bits_per_parameter_best",
                    value,
                    interval,
                    scale / parameters,
                    "bits/parameter",
                    groups,
                    note=f"{self.bits_per_parameter} at most ({SOURCE.split(':')[0]})",
                )
            )
        return found

    def _load(self, information: Measurement, parameters: int) -> Measurement:
        capacity = self.bits_per_parameter * parameters
        assert information.interval is not None
        load = information.value / capacity
        limited = (
            "data-limited: the trained weights could hold all of the training text by heart"
            if load < 1
            else "capacity-limited: the trained weights cannot hold all of the training text"
        )
        return _measurement(
            "capacity_load",
            information.value,
            information.interval,
            1 / capacity,
            "information/capacity",
            information.num_units,
            note=f"{limited}; {self.bits_per_parameter} bits x {parameters} parameters",
        )


def memorized_nats(
    base: DocumentLosses, tuned: DocumentLosses, generalized_nats_per_token: float
) -> np.ndarray:
    """Per row (D,): what training saved beyond what it saves on unseen text, never below 0."""
    saved_D = base.nll_nats_D - tuned.nll_nats_D
    return np.maximum(0.0, saved_D - generalized_nats_per_token * tuned.num_tokens_D)


def memorized_nats_per_token(
    base_train: DocumentLosses,
    tuned_train: DocumentLosses,
    base_test: DocumentLosses,
    tuned_test: DocumentLosses,
) -> tuple[float, Interval]:
    """Mean over training tokens minus the same over held-out tokens, with Welch's interval.

    Cutting rows off at 0 counts the noise of rows as memory; the held-out rows, of which nothing
    can be memorized, take that off again.
    """
    saved = base_test.nll_nats_D.sum() - tuned_test.nll_nats_D.sum()
    generalized = max(0.0, float(saved / base_test.num_tokens_D.sum()))
    return difference_of_ratios(
        (
            memorized_nats(base_train, tuned_train, generalized),
            tuned_train.num_tokens_D,
            tuned_train.groups_D,
        ),
        (
            memorized_nats(base_test, tuned_test, generalized),
            tuned_test.num_tokens_D,
            tuned_test.groups_D,
        ),
    )


def _measurement(
    name: str,
    value: float,
    interval: Interval,
    scale: float,
    unit: str,
    num_units: int,
    *,
    note: str = "",
    heldout: bool = False,
) -> Measurement:
    difference = interval.moved(times=scale)
    scaled = difference.within(0.0)
    return Measurement(
        name=name,
        value=max(0.0, value * scale),
        unit=unit,
        num_units=num_units,
        resampled_unit="group of rows",
        interval=scaled,
        contrasts={"heldout": Contrast(value * scale, difference)} if heldout else {},
        note=note,
    )


def _missing(name: str, what: str) -> NotMeasured:
    return NotMeasured(name, f"needs {what}")
