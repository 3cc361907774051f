"""Overfitting on purpose as a function."""

from collections.abc import Sequence
from pathlib import Path

import heldout


def overfit_on_purpose(model: str, data: str, out: Path, settings: Sequence[str]):
    """``settings`` such as ``["data.validation=a.jsonl", "data.test=b.jsonl"]``."""
    result = heldout.hyperfit(model, data, out=out, settings=settings)
    print(result.outcome)  # worked, partly or failed
    for sentence in result.sentences:
        print(sentence)
    print(result.figures["ttr_hyperfitted_greedy"], result.figures["ttr_base_top_p"])
    return result
