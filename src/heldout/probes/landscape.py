"""Landscape: sharpness, barrier to the base, gradient noise and size of the update: context only.

On transformers sharpness goes badly with generalization (Andriushchenko et al. 2023), so nothing
of this enters a verdict.
"""

# R draws, F points of the path, D documents

from dataclasses import dataclass

import numpy as np

from heldout.core.landscape import LossLandscape
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.probe import Evidence, Probe
from heldout.core.stats import RatioEstimate, paired_difference, ratio_estimate

SOURCE = (
    "adaptive sharpness: Kwon et al. 2021, arXiv 2102.11600, and Andriushchenko et al. 2023, arXiv "
    "2302.07011; barrier: Frankle et al. 2020, arXiv 1912.05671; noise: McCandlish et al. 2018, "
    "arXiv 1812.06162"
)
COST = "some twenty forward passes over a few dozen rows, and two backward passes"


@dataclass(frozen=True)
class Landscape(Probe):
    """Nats per token under noise and on the path; noise in tokens; update over the base's norm."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found = evidence.get(LossLandscape)
        if found is None:
            return [NotMeasured("sharpness_best", "was not asked for")]
        return [
            self._sharpness(found),
            self._barrier(found),
            self._noise(found, evidence),
            self._update(found),
        ]

    def _sharpness(self, found: LossLandscape) -> Measurement | NotMeasured:
        draws_R = found.sharpness_draws
        if draws_R is None or len(draws_R) < 2:
            return NotMeasured("sharpness_best", "needs two draws of weight noise")
        number_R, ones_R = np.arange(len(draws_R)), np.ones(len(draws_R))
        level = ratio_estimate(draws_R, ones_R, number_R, signed=True)
        contrasts = {}
        if found.base_sharpness_draws is not None:
            change = paired_difference(draws_R, found.base_sharpness_draws, ones_R, number_R)
            contrasts["base"] = change.as_contrast()
        return Measurement(
            name="sharpness_best",
            value=level.value,
            unit="nats/token",
            num_units=len(draws_R),
            resampled_unit="draw of weight noise",
            interval=level.interval,
            contrasts=contrasts,
            note=f"rise of the loss when each weight varies by {found.noise_ratio:.0%} of its size",
        )

    def _barrier(self, found: LossLandscape) -> Measurement | NotMeasured:
        if found.path_fractions is None or len(found.path_train) < 3:
            return NotMeasured("barrier_best", "needs a base model of the same shapes")
        if found.path_train[0].num_groups < 2:
            return NotMeasured("barrier_best", "needs rows of 2 groups")
        highest, estimate = barrier(found.path_fractions, found.path_train)
        return Measurement(
            name="barrier_best",
            value=estimate.value,
            unit="nats/token",
            num_units=estimate.num_groups,
            resampled_unit="group of rows",
            interval=estimate.interval,
            note=f"highest at {highest:g} of the way from the base; a path without one is below 0",
        )

    def _noise(self, found: LossLandscape, evidence: Evidence) -> Measurement | NotMeasured:
        if found.gradient_noise_scale is None or found.gradient_noise_interval is None:
            reason = "the gradient of the sample cannot be told from its noise"
            return NotMeasured("gradient_noise_scale", reason)
        used = evidence.facts.batch_size
        return Measurement(
            name="gradient_noise_scale",
            value=found.gradient_noise_scale,
            unit="tokens",
            num_units=found.path_train[0].num_groups if found.path_train else 1,
            resampled_unit="micro-batch",
            interval=Interval(*found.gradient_noise_interval, 0.95, "jackknife over micro-batches"),
            note=f"trained with {used} rows a batch" if used else "",
        )

    def _update(self, found: LossLandscape) -> Measurement | NotMeasured:
        if not found.update_norms:
            return NotMeasured("update_norm", "needs a base model of the same shapes")
        layers = {name: norm for name, norm in found.update_norms.items() if name != "all"}
        most = max(layers, key=lambda name: layers[name])
        return Measurement(
            name="update_norm",
            value=found.update_norms["all"],
            unit="of the base's norm",
            num_units=len(layers),
            resampled_unit="none: known exactly",
            note=f"most in {most}: {layers[most]:.2g}",
        )


def barrier(
    fractions_F: np.ndarray, path: tuple[DocumentLosses, ...]
) -> tuple[float, RatioEstimate]:
    """Where on the path the loss lies highest above the straight line between its ends, and by
    how much, paired by document; chosen over inner points, so a little too high by chance.
    """
    start, end = path[0], path[-1]
    estimates = []
    for fraction, losses in zip(fractions_F[1:-1], path[1:-1], strict=True):
        line_D = (1 - fraction) * start.nll_nats_D + fraction * end.nll_nats_D
        excess = paired_difference(losses.nll_nats_D, line_D, losses.num_tokens_D, losses.groups_D)
        estimates.append((float(fraction), excess))
    return max(estimates, key=lambda item: item[1].value)
