"""What the package promises to users: names, and which of them lack types or words.

- ``public_names``: of ``heldout`` and ``heldout.functions``.
- ``untyped_public``: those with a parameter or a result without a type, of their methods too.
- ``undocumented_public``: those without a docstring of their own, of their methods too.
- ``unreachable_types``: types that a public name takes, returns or holds, and that have no name.
- ``inner_paths_in_docs``: modules below ``heldout`` that docs, examples or the README name.

    python benchmarks/api.py [--write]
"""

import argparse
import dataclasses
import hashlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import heldout
from heldout.core.public_names import function_homes, homes, is_experimental

MOST = dict.fromkeys(
    ("untyped_public", "undocumented_public", "unreachable_types", "inner_paths_in_docs"), 0
)
"""A type checker that knows half of a package is turned off, and a path that moves breaks."""

ROOT = Path(__file__).resolve().parents[1]
_ROOMS = sorted(path.parent.name for path in (ROOT / "src" / "heldout").glob("*/__init__.py"))
INNER = re.compile(rf"\bheldout\.(?:{'|'.join(_ROOMS)})(?:\.\w+|\s+import)")


def public() -> dict[str, Any]:
    """Every public name with what it is."""
    names = {name: getattr(heldout, name) for name in homes()}
    functions = {f"functions.{name}": getattr(heldout.functions, name) for name in function_homes()}
    return names | functions


def callables_of(value: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The function itself, or the methods that a class of ours defines for users."""
    if inspect.isfunction(value):
        yield "", inspect.unwrap(value)
    elif isinstance(value, type):
        for name, member in vars(value).items():
            if name.startswith("_") and (name != "__init__" or _has_made_init(value)):
                continue
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "func", getattr(function, "__func__", function))
            if inspect.isfunction(function):
                yield f".{name}", inspect.unwrap(function)


def _has_made_init(value: type) -> bool:
    return dataclasses.is_dataclass(value) or getattr(value, "_is_protocol", False)


def untyped() -> list[str]:
    found = []
    for name, value in public().items():
        for member, function in callables_of(value):
            signature = inspect.signature(function)
            parts = [*signature.parameters.values()]
            bare = [p.name for p in parts if p.annotation is p.empty]
            has_result = signature.return_annotation is not inspect.Signature.empty
            if set(bare) - {"self", "cls"} or not (has_result or member == ".__init__"):
                found.append(f"{name}{member}")
    return found


def undocumented() -> list[str]:
    """Names without words; a method may go by those of the class that first has it."""
    found = []
    for name, value in public().items():
        if isinstance(value, type):
            words = value.__doc__ or ""
            if not words or words.startswith(f"{value.__name__}("):  # what a dataclass writes
                found.append(name)
        elif inspect.isfunction(value) and not inspect.getdoc(value):
            found.append(name)
    return found


def unreachable() -> list[str]:
    """Types of ours without a public name, each with where it was met."""
    known = set(map(id, public().values()))
    met: dict[str, str] = {}

    def walk(hint: Any, where: str) -> None:
        if isinstance(hint, type) and hint.__module__.startswith("heldout."):  # noqa: SIM102
            if id(hint) not in known and not hint.__name__.startswith("_"):
                met.setdefault(f"{hint.__module__}.{hint.__name__}", where)
        for argument in typing.get_args(hint):
            walk(argument, where)

    for name, value in public().items():
        if isinstance(value, type):
            for field, hint in _hints(value).items():
                if not field.startswith("_"):
                    walk(hint, f"{name}.{field}")
        for member, function in callables_of(value):
            made = isinstance(value, type) and isinstance(
                inspect.getattr_static(value, member[1:], None), classmethod | staticmethod
            )
            if not made:
                for hint in _hints(function).values():
                    walk(hint, f"{name}{member}")
    return [f"{name} (of {where})" for name, where in sorted(met.items())]


def _hints(value: Any) -> dict[str, Any]:
    import pandas
    import peft
    import torch
    import transformers

    names = {"PreTrainedModel": transformers.PreTrainedModel, "PeftModel": peft.PeftModel}
    return typing.get_type_hints(value, localns={"torch": torch, "pandas": pandas, **names})


def inner_paths() -> list[str]:
    """``file: path`` for each; decisions are about the house itself and may name its rooms."""
    files = [*ROOT.glob("README*.md"), *(ROOT / "examples").rglob("*"), *(ROOT / "docs").rglob("*")]
    found = []
    for file in sorted(files):
        is_text = file.suffix in (".md", ".py", ".ipynb") and file.name != "generate.py"
        if is_text and not {"decisions", "generated"} & set(file.parts) and file.name != "stubs.py":
            for match in INNER.finditer(file.read_text(encoding="utf-8")):
                found.append(f"{file.relative_to(ROOT)}: {match[0]}")
    return found


def figures() -> dict[str, float]:
    names = public()
    return {
        "public_names": len(names),
        "experimental_names": sum(map(is_experimental, names)),
        "functions": sum(isinstance(value, types.FunctionType) for value in names.values()),
        "untyped_public": len(untyped()),
        "undocumented_public": len(undocumented()),
        "unreachable_types": len(unreachable()),
        "inner_paths_in_docs": len(inner_paths()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    found = figures()
    for name, value in found.items():
        print(f"{name}: {value}")
    for line in [*untyped(), *undocumented(), *unreachable(), *inner_paths()]:
        print("  ", line)
    assert all(found[name] <= most for name, most in MOST.items())
    if options.write:
        from record import write_record

        table = [{"name": name, "experimental": is_experimental(name)} for name in public()]
        listed = "\n".join(row["name"] for row in table).encode()
        sha = hashlib.sha256(listed).hexdigest()
        print(write_record("api", found, table=table, seeds=[], data_sha256=sha))


if __name__ == "__main__":
    main()
