"""``heldout recipe``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated

import typer


def recipe(
    source: Annotated[
        str, typer.Argument(metavar="RUN|NAME", help="A run folder, a ready recipe, or a .toml.")
    ],
    trainer: Annotated[
        str, typer.Option("--for", help="trl, axolotl, llama-factory, unsloth or mlx.")
    ],
    rows: Annotated[
        str | None,
        typer.Option(
            help="What a recipe will be given: text, completion or conversation. A run has its own."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write it here, into a file, or, without a suffix, into a folder with the rows of "
            "a run's own split; default: print it."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The exact settings of a run's best, or of a recipe, to copy into another trainer."""
    from heldout.jobs.exporting.export_recipe import export_recipe, write_export

    text = export_recipe(source, trainer, rows)
    files = [] if out is None else write_export(source, trainer, out, rows)
    if as_json:
        written = {"files": [str(file) for file in files]} if files else {}
        print(json.dumps({"schema": "heldout.recipe/1", "for": trainer, "text": text, **written}))
    elif files:
        print("\n".join(map(str, files)))
    else:
        print(text, end="")
