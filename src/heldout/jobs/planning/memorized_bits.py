"""Bits of text that a model has memorized: what it shortens beyond what a reference can tell."""

# D rows

from collections.abc import Sequence

import numpy as np

from heldout.core.measurement import Contrast, Measurement
from heldout.core.stats import difference_of_ratios, ratio_estimate


def memorized_bits(
    reference_bits_D: np.ndarray, model_bits_D: np.ndarray, *, clipped: bool
) -> np.ndarray:
    """Bits by which a model shortens each row beyond its reference, (D,).

    ``clipped`` takes the better of model and reference for each row, as the paper does for real
    text: H(x | reference) - H(x | reference, model) is never negative.
    """
    bits_D = np.asarray(reference_bits_D, np.float64) - np.asarray(model_bits_D, np.float64)
    return np.maximum(bits_D, 0.0) if clipped else bits_D


def measure_memorized(
    train_bits_D: np.ndarray,
    train_reference_D: np.ndarray,
    train_groups: Sequence[str],
    heldout_bits_D: np.ndarray,
    heldout_reference_D: np.ndarray,
    heldout_groups: Sequence[str],
    *,
    parameters: int,
    clipped: bool,
) -> Measurement:
    """Memorized bits per parameter, with held-out rows of as many reference bits as control."""
    load = float(train_reference_D.sum()) / parameters
    train = memorized_bits(train_reference_D, train_bits_D, clipped=clipped)
    heldout = memorized_bits(heldout_reference_D, heldout_bits_D, clipped=clipped)
    own = ratio_estimate(train, train_reference_D, train_groups)
    difference, bounds = difference_of_ratios(
        (train, train_reference_D, train_groups), (heldout, heldout_reference_D, heldout_groups)
    )
    return Measurement(
        "memorized",
        own.value * load,
        "bits per parameter",
        own.num_groups,
        "group" if clipped else "sequence",
        own.interval.moved(times=load),
        {"heldout": Contrast(difference * load, bounds.moved(times=load))},
        note="conditional on the seed; a lower bound, as training was finite",
    )
