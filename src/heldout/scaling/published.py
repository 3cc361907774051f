"""Constants that others have published, with the range of the runs behind them.

They stand in where there are no own runs, and hold for nothing but training from scratch on web
text with those authors' tokenizers and recipes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from heldout.scaling import muennighoff
from heldout.scaling.chinchilla import Chinchilla
from heldout.scaling.law import Law
from heldout.scaling.muennighoff import Muennighoff


@dataclass(frozen=True)
class PublishedLaw:
    """A law with its published parameters; ``ranges`` of the runs by axis of ``reach``."""

    law: Law
    parameters: Mapping[str, float]
    citation: str
    ranges: Mapping[str, tuple[float, float]]


# A refit of the runs of Hoffmann et al., whose own published constants do not fit these runs.
CHINCHILLA = PublishedLaw(
    Chinchilla(),
    {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
    "Besiroglu et al. 2024, arXiv 2404.10102",
    {"N": (7e7, 1.6e10), "D": (5e9, 5e11), "epochs": (1.0, 1.0)},
)
MUENNIGHOFF = PublishedLaw(
    Muennighoff(),
    muennighoff.PUBLISHED,
    muennighoff.SOURCE,
    {"N": (7.1e6, 8.7e9), "D": (1e8, 9e11), "U": (1e8, 1.78e11)},
)
LAWS = (MUENNIGHOFF, CHINCHILLA)


@dataclass(frozen=True)
class TunedRule:
    """A power law through tuned optima: ``factor * (N / U) ** exponent``."""

    factor: float
    exponent: float
    low: float  # N / U of the optima behind it
    high: float
    citation: str

    def __call__(self, load: float) -> float:
        """What the rule says of ``load`` parameters per unique token."""
        return self.factor * load**self.exponent


# 16 optima of models of 150M to 1.4B parameters on 0.2B to 1.7B unique tokens, from scratch.
TUNED_BY = "a fit over the optima of Kim et al. 2025, arXiv 2509.14786"
WEIGHT_DECAY = TunedRule(1.09, 0.75, 0.089, 6.7, TUNED_BY)
EPOCHS = TunedRule(13.7, -0.54, 0.089, 6.7, TUNED_BY)
# Data efficiency at 0.2B unique tokens: how many times the data the untuned recipe would need.
ENSEMBLE_CITATION = "Kim et al. 2025, arXiv 2509.14786"
REGULARIZED_EFFICIENCY = 2.29
ENSEMBLE_EFFICIENCY = 5.17
DISTILLED_SHARE = 0.83
