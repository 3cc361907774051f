"""The contrast that each verdict rests on, fixed beforehand, and what is said where there is none.

Where the contrast of a verdict was not measured another one may stand in for it: the first of a
verdict's that was measured decides. Which one it is follows from the data alone, never from a
result.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from heldout.core.measurement import Measurement, NotMeasured


@dataclass(frozen=True)
class Primary:
    """The contrast that decides a verdict; ``sign`` is -1 where a lower value is better.

    ``matters`` is the smallest change for the worse that turns the verdict red; green asks for an
    interval that ends below ``ruled_out``. None: the run's own minimum effect decides.
    """

    verdict: str  # its name, one of VERDICTS
    measurement: str
    control: str
    sign: int
    matters: float | None = None
    ruled_out: float | None = None
    source: str = ""


PRIMARY = (
    Primary("fit", "test_nll_best", "base", -1, source="eval.min_effect of the recipe"),
    Primary("quality", "metric_best", "base", 1, source="any sure change of the user's metric"),
    Primary(
        "generation",
        "generated_nll_best",
        "human",
        -1,
        0.1,
        0.1,
        "a tenth of the perplexity; greedy text is likelier than people's under the model itself "
        "(Holtzman 2020, arXiv 1904.09751), and of a sound model under its base",
    ),
    Primary(
        "memorization",
        "recital_best",
        "base",
        -1,
        0.05,
        0.1,
        # Shares of the training rows, beyond what is recited of held-out rows and by the base.
        "one training row in twenty; models of 6B parameters recite about 1 % of their training "
        "text (Carlini 2022, arXiv 2202.07646)",
    ),
    # Stand-ins, where rows are too short to be recited.
    Primary(
        "memorization",
        "exposure_best",
        "base",
        -1,
        3.0,
        3.0,
        "a planted secret stands eight times higher among its like than before training",
    ),
    Primary(
        "memorization",
        "membership_auc_reference_best",
        "base",
        -1,
        math.inf,  # that a row is told from others does not show that the model says it
        0.1,
        "a tenth of the pairs of a training row and an unseen one",
    ),
    Primary(
        "forgetting",
        "forgetting_best",
        "base",
        -1,
        0.05,
        0.1,
        "5 % of the perplexity on other text; repeated fine-tuning costs that much and more "
        "(Luo 2023, arXiv 2308.08747)",
    ),
    Primary(
        "confidence",
        "ece_best",
        "base",
        -1,
        0.1,
        0.1,
        "10 points of probability: what Guo 2017 (arXiv 1706.04599) found in uncalibrated networks",
    ),
)
NOT_ASKED = {
    "fit": "Not measured: the sealed test part was not opened.",
    "quality": "No task metric was named: loss alone does not tell whether answers are better.",
    "generation": "Not measured: what the model writes was not judged.",
    "memorization": "Not measured: what the model recites was not probed.",
    "forgetting": "Not measured: no text of other domains was given.",
    "leakage": "Not measured beyond the leak-safe split.",
    "confidence": "Not measured.",
}
_TELLS_ITSELF = ("fit", "quality")  # where not measured, the sentence above is the reason


def deciding(by_name: dict[str, Measurement]) -> dict[str, Primary]:
    """Of each verdict the first contrast that was measured."""
    found: dict[str, Primary] = {}
    for primary in PRIMARY:
        measured = by_name.get(primary.measurement)
        if measured is not None and primary.control in measured.contrasts:
            found.setdefault(primary.verdict, primary)
    return found


def why_unknown(verdict: str, measurements: Iterable[Measurement | NotMeasured]) -> str:
    """Why nothing is said of a verdict whose contrast was not measured, in a sentence."""
    first = next((each for each in PRIMARY if each.verdict == verdict), None)
    if first is None:
        return NOT_ASKED[verdict]
    for each in measurements:
        if each.name != first.measurement:
            continue
        if isinstance(each, Measurement):
            return (
                "Measured, and not judged: there is no base model with the same tokenizer to "
                "compare with. Name it with --base."
            )
        if verdict not in _TELLS_ITSELF:
            return f"Not measured: {each.reason}."
    return NOT_ASKED[verdict]
