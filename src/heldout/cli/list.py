"""``heldout list``: parse, read the catalog, print."""

import json
from typing import Annotated

import typer
from rich.text import Text

from heldout.cli import completing
from heldout.cli.console import Console, Table
from heldout.core.errors import UserError, did_you_mean
from heldout.core.recipe_keys import RecipeKey, recipe_keys

KEYS = "keys"


def list_catalog(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[KIND|NAME]",
            autocompletion=completing.catalog,
            help="regularizer, augmentation, probe, law or recipe, keys (of a recipe), or the name "
            "of one; empty: all but keys.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Every regularizer, augmentation, probe, law and recipe, with its cost and its source."""
    from heldout.cli.show import show_card, show_entries
    from heldout.core.discovery import ROOMS, list_entries

    known = recipe_keys()
    keys = [key for of_section in known.values() for key in of_section if key.name == what]
    if keys or what == KEYS:
        _show_keys({what.partition(".")[0]: tuple(keys)} if keys else known, as_json)
        return
    kinds = [*ROOMS, "recipe"]
    entries = list_entries()
    found = [entry for entry in entries if what in ("", entry.kind, entry.name)]
    if what and what not in (*kinds, *(entry.name for entry in entries)):
        every = [key.name for of_section in known.values() for key in of_section]
        names = [*kinds, KEYS, *(entry.name for entry in entries)]
        near = [*names, *every] if "." in what else names
        raise UserError(f"list: {what!r} is neither a kind nor a name{did_you_mean(what, near)}")
    if what and what not in kinds and not as_json:
        for entry in found:
            show_card(entry)
        return
    show_entries(found, as_json)


def _show_keys(keys: dict[str, tuple[RecipeKey, ...]], as_json: bool) -> None:
    """Section by section: key, default, meaning. English, as help is."""
    if as_json:
        print(json.dumps([vars(key) for of_section in keys.values() for key in of_section]))
        return
    console = Console()
    for section, of_section in keys.items():
        console.print(Text(section, style="bold"))
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", max_width=24)
        table.add_column(overflow="fold")
        for key in of_section:
            table.add_row(Text(f"  {key.name}"), Text(repr(key.default)), Text(key.meaning))
        console.print(table)
    console.print("Set one with --set KEY=VALUE. Those of a part: `heldout list NAME`.")
