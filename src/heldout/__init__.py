"""Train and fine-tune causal language models on little data without overfitting.

``heldout.fit`` is the main job; ``heldout.attach`` adds regularizers to any Trainer, and
``heldout.Steps`` to a loop of your own; ``heldout.augmented`` writes variants of rows out. Every
regularizer and augmentation of the catalog is a name here, such as ``heldout.RDrop``, and so is
every type that a job takes or returns; ``heldout.functions`` has the mathematics alone. Modules
below are inner: they may change in any version. Names are imported when they are first used, so
that ``import heldout`` needs no torch.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    # Submodules and special names are looked up here too, and must not read the catalog's files.
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'heldout' has no attribute {name!r}")
    from heldout.core.public_names import HOMES, homes

    if name == "functions":
        return importlib.import_module("heldout.functions")
    if name == "__all__":
        return sorted([*homes(), "functions"])
    home = HOMES.get(name)
    if home is None and name[0].isupper():
        home = homes().get(name)
    if home is None:
        raise AttributeError(f"module 'heldout' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    from heldout.core.public_names import homes

    return sorted(globals().keys() | homes() | {"functions"})
