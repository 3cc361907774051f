"""Train and fine-tune causal language models on little data without overfitting.

``heldout.fit`` is the main job; ``heldout.attach`` adds regularizers to any Trainer, and
``heldout.Steps`` to a loop of your own; ``heldout.augmented`` writes variants of rows out. Every
regularizer and augmentation of the catalog is a name here, such as ``heldout.RDrop``. Names are
imported when they are first used, so that ``import heldout`` needs no torch.
"""

import importlib
from typing import Any

# Public names that no catalog file gives -> where they live.
_HOMES = {
    "attach": "heldout.training.attach",
    "augmented": "heldout.jobs.augmented",
    "check": "heldout.jobs.checking.check",
    "counterfactual": "heldout.jobs.counterfactual.counterfactual",
    "diagnose": "heldout.jobs.diagnosing.diagnose",
    "distill": "heldout.jobs.ensembles.distill",
    "ensemble": "heldout.jobs.ensembles.ensemble",
    "fit": "heldout.jobs.fitting.fit",
    "hyperfit": "heldout.jobs.hyperfitting.hyperfit",
    "resume": "heldout.jobs.fitting.fit",
    "write_report": "heldout.jobs.report",
    "Augmentation": "heldout.core.augmentation",
    "CitationBlocker": "heldout.lm.citation_blocker",
    "DiagnoseCallback": "heldout.training.diagnose_callback",
    "Regularizer": "heldout.core.regularizer",
    "Steps": "heldout.training.steps",
    "UserError": "heldout.core.errors",
}


def _homes() -> dict[str, str]:
    """Where every public name lives; regularizers and augmentations are read from their files."""
    from heldout.core.discovery import entries_of

    found = [*entries_of("regularizer"), *entries_of("augmentation")]
    ours = ("heldout.regularizers.", "heldout.augment.")
    return {e.class_name: e.module for e in found if e.module.startswith(ours)} | _HOMES


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    home = _HOMES.get(name)
    # Submodules and special names are looked up here too, and must not read the catalog's files.
    if home is None and name[0].isupper():
        home = _homes().get(name)
    if home is None:
        raise AttributeError(f"module 'heldout' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(globals().keys() | _homes())
