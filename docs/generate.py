"""Write the generated pages: the catalog from docstrings, the recipe keys from the dataclasses."""

import ast
import dataclasses
import inspect
from pathlib import Path

import heldout.core.recipe as recipe_module
from heldout.core.discovery import list_entries
from heldout.core.recipe import Recipe

FOLDER = Path(__file__).parent / "generated"


def catalog() -> str:
    lines = ["# Catalog", "", "What `heldout list` shows; a card for each follows.", ""]
    lines += ["| kind | name | what it does | cost | source |", "| --- | --- | --- | --- | --- |"]
    for entry in list_entries():
        lines.append(
            f"| {entry.kind} | `{entry.name}` | {entry.summary} | {entry.cost} | {entry.source} |"
        )
    for entry in list_entries():
        if entry.module:
            path = Path(recipe_module.__file__).parents[1] / Path(*entry.module.split(".")[1:])
            tree = ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
            lines += ["", f"## {entry.name}", "", ast.get_docstring(tree) or "", ""]
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    lines += [f"**`{node.name}`**: {ast.get_docstring(node) or ''}", ""]
            lines += [f"Source: {entry.source}. Cost: {entry.cost}."]
    return "\n".join(lines) + "\n"


def recipe_keys() -> str:
    comments = _comments()
    lines = [
        "# Recipe keys",
        "",
        "Set any of them with `--set section.key=value`, or in a .toml file given by `--recipe`.",
        "",
    ]
    for section in dataclasses.fields(Recipe):
        kind = type(getattr(Recipe(), section.name))
        if not dataclasses.is_dataclass(kind):
            continue
        lines += [f"## {section.name}", "", inspect.getdoc(kind) or "", ""]
        lines += ["| key | default | meaning |", "| --- | --- | --- |"]
        for item in dataclasses.fields(kind):
            meaning = comments[kind.__name__, item.name]
            default = getattr(getattr(Recipe(), section.name), item.name)
            lines.append(f"| `{section.name}.{item.name}` | `{default!r}` | {meaning} |")
        lines.append("")
    lines += [
        "## regularizers",
        "",
        "`regularizers.NAME.PARAMETER=value` sets a parameter of a regularizer of the",
        "[catalog](catalog.md); `regularizers.NAME=true` adds it with its defaults,",
        "`regularizers.NAME=false` takes it out.",
    ]
    return "\n".join(lines) + "\n"


def _comments() -> dict[tuple[str, str], str]:
    """What stands behind each field in the source: (class, field) -> comment."""
    text = inspect.getsource(recipe_module)
    lines = text.splitlines()
    return {
        (node.name, item.target.id): lines[item.lineno - 1].partition("  # ")[2]
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "catalog.md").write_text(catalog(), encoding="utf-8")
    (FOLDER / "recipe.md").write_text(recipe_keys(), encoding="utf-8")
