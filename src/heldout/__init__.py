"""Train and fine-tune causal language models on little data without overfitting.

``heldout.fit`` is the main job; ``heldout.attach`` adds regularizers to any Trainer. Names are
imported when they are first used, so that ``import heldout`` needs no torch.
"""

import importlib
from typing import Any

_HOMES = {
    "attach": "heldout.training.attach",
    "fit": "heldout.jobs.fit",
    "resume": "heldout.jobs.fit",
    "write_report": "heldout.jobs.report",
    "UserError": "heldout.core.errors",
    "Regularizer": "heldout.core.regularizer",
    "Dropout": "heldout.regularizers.dropout",
    "LabelSmoothing": "heldout.regularizers.label_smoothing",
    "WeightDecay": "heldout.regularizers.weight_decay",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'heldout' has no attribute {name!r}")
