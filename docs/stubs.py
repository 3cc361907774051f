"""Write the stubs that tell type checkers and editors the names of the package.

``python docs/stubs.py`` after a new regularizer, augmentation, law or public name.
"""

from pathlib import Path

import heldout
from heldout.core.public_names import function_homes, homes

PACKAGE = Path(heldout.__file__).parent


def stubs() -> dict[str, str]:
    """File of the package -> its text."""
    return {
        "__init__.pyi": _stub({"functions": "heldout", **homes()}),
        "functions.pyi": _stub(function_homes()),
    }


def _stub(modules: dict[str, str]) -> str:
    lines = ["# Written by docs/stubs.py from core/public_names.py and the files of the catalog."]
    for module, name in sorted((module, _as_sorted(name)) for name, module in modules.items()):
        line = f"from {module} import {name[1:]} as {name[1:]}"
        if len(line) > 100:
            line = f"from {module} import (\n    {name[1:]} as {name[1:]},\n)"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _as_sorted(name: str) -> str:
    """As ruff sorts members: constants, then classes, then functions."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return f"{kind}{name}"


if __name__ == "__main__":
    for file, text in stubs().items():
        (PACKAGE / file).write_text(text, encoding="utf-8")
