"""The mathematics as plain functions of arrays and tensors, for a loop or a table of your own.

All functions of the files of the catalog, such as ``agreement`` of R-Drop or ``lovelace_loss``, and
those that a regularizer, probe or law of one's own builds on. Experimental: names may change
in any version.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("__") or name == "__all__":
        from heldout.core.public_names import function_homes

        if name == "__all__":
            return sorted(function_homes())
        if name in function_homes():
            return getattr(importlib.import_module(function_homes()[name]), name)
    raise AttributeError(f"module 'heldout.functions' has no attribute {name!r}")


def __dir__() -> list[str]:
    from heldout.core.public_names import function_homes

    return sorted(function_homes())
