"""``heldout plan compress``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from heldout.cli import completing


def compress(
    data: Annotated[
        str, typer.Argument(help="jsonl, json, csv, parquet, txt, a folder of these, or a Hub id.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="As for `heldout fit`.")],
    from_scratch: Annotated[
        str,
        typer.Option(
            metavar="CONFIG", help="Start from a config.json; --model then names the tokenizer."
        ),
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            autocompletion=completing.recipes,
            help="A ready recipe (see `heldout list`) or a .toml file; default is full for models "
            "of under 20 million parameters, lora for larger ones.",
        ),
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completing.settings,
            help="Any field of the recipe.",
        ),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="restart: each block's model anew; continue: on from the last.")
    ] = "restart",
    blocks: Annotated[
        int, typer.Option(help="Each holds as many tokens as all before it together.")
    ] = 7,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write compress.json and report.html; go on there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Structure or rote: how far a model compresses data as it learns from it."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.compressing.compress import compress as job

    with console_progress() as progress:
        result = job(
            data,
            model=model,
            from_scratch=from_scratch,
            recipe=recipe,
            settings=settings or [],
            strategy=strategy,  # type: ignore[arg-type]  # the job refuses others
            blocks=blocks,
            out=out,
            progress=progress,
        )
    entry = result.to_json()
    if as_json:
        print(json.dumps(entry, allow_nan=False))
        return
    from heldout.cli.console import Console, Table

    console = Console()
    console.print(result.headline, markup=False)
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in ("bits per byte", "", "95 % from", "to"):
        table.add_column(column, justify="left" if column == "bits per byte" else "right")
    for each in entry["measurements"]:
        if each["status"] == "not_measured":
            table.add_row(each["name"], f"not measured: {each['reason']}", "", "")
            continue
        bounds = each["interval"] or {}
        ends = ("" if bounds.get(end) is None else f"{bounds[end]:.3f}" for end in ("low", "high"))
        table.add_row(each["name"], f"{each['value']:.3f}", *ends)
    for part in entry["two_part"]:
        table.add_row(f"two-part, {part['prior']}", f"{part['bits_per_byte']:.3f}", "", "")
    console.print(table)
    for note in result.notes:
        console.print(f"- {note}", markup=False)
    if result.report:
        console.print(f"report  {result.report}", markup=False, soft_wrap=True)
