"""Loss on text that training never touched, against the base model and the other arms."""

from dataclasses import dataclass

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence, Probe

SOURCE = "paired differences over groups; intervals: docs/decisions/012-intervals.md"
COST = "one forward pass over the held-out part per model"


@dataclass(frozen=True)
class HeldoutLoss(Probe):
    """Nats per token and bits per byte; a contrast is value minus control, negative is better."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for part in ("test", "out_of_fold"):
            for model in MODELS:
                losses = evidence.losses.get((model, part))
                if losses is None or losses.num_groups < 2:
                    continue
                controls = [] if model == "base" else ["base"]
                if model == "best":
                    controls += ["last", "fixed_epochs"]
                level = losses.estimate()
                contrasts = {
                    control: losses.minus(evidence.losses[control, part]).as_contrast()
                    for control in controls
                    if (control, part) in evidence.losses
                }
                name = f"{part}_nll_{model}"
                found.append(level.as_measurement(name, "nats/token", "group of rows", contrasts))
                found.append(
                    Measurement(
                        name=f"{part}_bits_per_byte_{model}",
                        value=losses.bits_per_byte,
                        unit="bits/byte",
                        num_units=level.num_groups,
                        resampled_unit="group of rows",
                    )
                )
        if not found:
            reason = "the held-out part has not been opened: the run was not finished"
            found.append(NotMeasured("test_nll_best", reason))
        return found
