"""``heldout list``: parse, read the catalog, print."""

from typing import Annotated

import typer

from heldout.core.errors import UserError, did_you_mean


def list_catalog(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[KIND|NAME]",
            help="regularizer, augmentation, probe, law or recipe, or the name of one; empty: all.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Every regularizer, augmentation, probe, law and recipe, with its cost and its source."""
    from heldout.cli.show import show_card, show_entries
    from heldout.core.discovery import ROOMS, list_entries

    kinds = [*ROOMS, "recipe"]
    entries = list_entries()
    found = [entry for entry in entries if what in ("", entry.kind, entry.name)]
    if what and what not in (*kinds, *(entry.name for entry in entries)):
        names = [*kinds, *(entry.name for entry in entries)]
        raise UserError(f"list: {what!r} is no kind and no name{did_you_mean(what, names)}")
    if what and what not in kinds and not as_json:
        for entry in found:
            show_card(entry)
        return
    show_entries(found, as_json)
