"""``heldout recipe``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from heldout.core.errors import UserError
from heldout.core.files import write_text


def recipe(
    source: Annotated[
        str, typer.Argument(metavar="RUN|NAME", help="A run folder, a ready recipe, or a .toml.")
    ],
    trainer: Annotated[str, typer.Option("--for", help="trl, axolotl, llama-factory or unsloth.")],
    out: Annotated[Path | None, typer.Option(help="Write it here; default: print it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The exact settings of a run's best, or of a recipe, to copy into another trainer."""
    from heldout.jobs.exporting.export_recipe import export_recipe

    text = export_recipe(source, trainer)
    if out is not None:
        if out.exists():
            raise UserError(f"--out {out} exists already: give another name. Nothing was written.")
        write_text(out, text)
    if as_json:
        print(json.dumps({"schema": "heldout.recipe/1", "for": trainer, "text": text}))
    elif out is not None:
        print(out)
    else:
        print(text, end="")
