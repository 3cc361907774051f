"""Prompt sensitivity: how far answers move with the wording, and whether they move with a key fact.

A model that has learned by heart moves with typography, or does not move when a number, date or
name in the question changes. Both are compared with the base model on the same prompts.
"""

# P prompts

from dataclasses import dataclass

import numpy as np

from heldout.core.equal_lengths import LEAST_GROUPS, LEAST_PROMPTS, PARTS
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import MODELS, Evidence, Probe
from heldout.core.prompt_pairs import PromptPairs
from heldout.core.stats import (
    difference_of_paired_ratios,
    paired_difference,
    ratio_estimate,
)

SOURCE = "POSIX: Chatterjee et al. 2024, arXiv 2410.02185; key facts against rewordings: heldout"
COST = "about 6 short answers and 28 short forward passes a prompt"


@dataclass(frozen=True)
class PromptSensitivity(Probe):
    """POSIX over harmless rewordings, and divergence for a changed key fact over that for none."""

    def measure(self, evidence: Evidence) -> list[Measurement | NotMeasured]:
        found: list[Measurement | NotMeasured] = []
        for model in MODELS:
            pairs = evidence.every(PromptPairs)
            part = next((part for part in PARTS if (model, part) in pairs), None)
            own = pairs[model, part] if part else None
            base = pairs.get(("base", part)) if part and model != "base" else None
            if base is not None and own is not None and base.prompts != own.prompts:
                base = None  # another tokenizer cuts other prompts: no control
            for measured in (_posix(model, own, base), _key_fact(model, own, base)):
                if isinstance(measured, Measurement) or model == "best":
                    found.append(measured)
        return found


def _posix(
    model: str, own: PromptPairs | None, base: PromptPairs | None
) -> Measurement | NotMeasured:
    keep = _kept(own, base, ("posix_P",))
    if own is None or keep is None:
        reason = f"needs {LEAST_PROMPTS} prompts of {LEAST_GROUPS} groups that are answered"
        return NotMeasured(f"prompt_sensitivity_{model}", reason)
    values, groups = own.posix_P[keep], own.groups_P[keep]
    ones = np.ones(len(groups))
    contrasts = {}
    if base is not None:
        contrasts["base"] = paired_difference(
            values, base.posix_P[keep], ones, groups
        ).as_contrast()
    return ratio_estimate(values, ones, groups).as_measurement(
        f"prompt_sensitivity_{model}",
        "nats/token",
        "group of prompts",
        contrasts,
        "mean over pairs of harmless rewordings",
    )


def _key_fact(
    model: str, own: PromptPairs | None, base: PromptPairs | None
) -> Measurement | NotMeasured:
    keep = _kept(own, base, ("key_P", "harmless_P"))
    name = f"key_fact_sensitivity_{model}"
    if own is None or keep is None:
        return NotMeasured(
            name,
            f"needs {LEAST_PROMPTS} prompts of {LEAST_GROUPS} groups with a number, date or name "
            "in them: give pairs of prompts",
        )
    ratio = (own.key_P[keep], own.harmless_P[keep])
    groups = own.groups_P[keep]
    if ratio[1].sum() <= 0:
        return NotMeasured(name, "harmless rewordings change nothing at all")
    contrasts = {}
    if base is not None and base.harmless_P[keep].sum() > 0:
        control = (base.key_P[keep], base.harmless_P[keep])
        contrasts["base"] = difference_of_paired_ratios(ratio, control, groups).as_contrast()
    return ratio_estimate(*ratio, groups, null=1.0).as_measurement(
        name,
        "times a harmless change",
        "group of prompts",
        contrasts,
        "below the base model: a changed fact changes less",
    )


def _kept(
    own: PromptPairs | None, base: PromptPairs | None, fields: tuple[str, ...]
) -> np.ndarray | None:
    """Prompts that both models have all numbers of; None where too few."""
    if own is None:
        return None
    keep = np.ones(len(own), dtype=bool)
    for pairs in (own, base):
        for name in fields if pairs is not None else ():
            keep &= np.isfinite(getattr(pairs, name))
    if keep.sum() < LEAST_PROMPTS or len(np.unique(own.groups_P[keep])) < LEAST_GROUPS:
        return None
    return keep
