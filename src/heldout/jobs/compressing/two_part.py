"""Two-part codes: the weights first, then the data given the weights (Rissanen 1978)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from heldout.core.results.compression import TwoPart
from heldout.lm.weights import copies, trained_parameters, weights_replaced

PRECISIONS = (2, 4, 8)  # bits of a step of the grid that weights are rounded to


def two_part_codes(
    model: Any, start: Mapping[str, torch.Tensor], data_bits: Callable[[], float], num_samples: int
) -> list[TwoPart]:
    """L(theta) and the data given theta, for priors over the change of the trained weights.

    The asymptotic one, (k/2) log2 n for k weights and n tokens (Rissanen 1978), and codes that can
    be decoded: each tensor's change is rounded to a grid of ``2^b - 1`` steps, whose numbers are
    coded adaptively (Laplace), after 32 bits for the size of a step.
    """
    trained = copies(trained_parameters(model))
    num = sum(value.numel() for value in trained.values())
    found = [TwoPart("(k/2) log2 n", num / 2 * math.log2(num_samples), data_bits())]
    for precision in PRECISIONS:
        reach = 2 ** (precision - 1) - 1
        rounded, bits = {}, 0.0
        for name, value in trained.items():
            change = value - start[name]
            step = change.abs().max() / reach
            steps = torch.zeros_like(change) if step == 0 else (change / step).round()
            rounded[name] = start[name] + step * steps
            bits += 32 + adaptive_bits(steps.long().flatten().cpu().numpy() + reach, 2 * reach + 1)
        with weights_replaced(model, rounded):
            found.append(TwoPart(f"{precision}-bit grid", bits, data_bits()))
    return found


def adaptive_bits(symbols: np.ndarray, alphabet: int) -> float:
    """Bits of a sequence of whole numbers under Laplace's rule: nothing but the alphabet is known.

    Each symbol's chance is (times seen + 1) / (symbols so far + alphabet); the product has a closed
    form in the counts.
    """
    counts = np.bincount(symbols, minlength=alphabet)
    nats = math.lgamma(len(symbols) + alphabet) - math.lgamma(alphabet)
    return (nats - sum(math.lgamma(count + 1) for count in counts.tolist())) / math.log(2)
