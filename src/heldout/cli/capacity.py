"""``heldout plan capacity``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated

import typer


def capacity(
    config: Annotated[
        list[Path] | None,
        typer.Option(metavar="CONFIG", help="A config.json with vocab_size; may be repeated."),
    ] = None,
    load: Annotated[
        list[float] | None,
        typer.Option(help="Bits of text per parameter; may be repeated; default 0.5 to 6."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Of training, 64 sequences each.")] = 2000,
    length: Annotated[int, typer.Option(help="Tokens of a random sequence.")] = 32,
    learning_rate: Annotated[
        float, typer.Option(help="The highest; about 1 / width suits small models.")
    ] = 1e-2,
    seed: Annotated[int, typer.Option(help="Of the model and the tokens.")] = 0,
    data: Annotated[str, typer.Option("--data", "-d", help="Measure on this text too.")] = "",
    reference: Annotated[
        str, typer.Option(metavar="MODEL", help="What it predicts of --data is not memorized.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write capacity.json and report.html; go on there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How many bits a model can hold: memorized random tokens, up to the plateau."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.planning.capacity import LOADS
    from heldout.jobs.planning.capacity import capacity as job

    with console_progress() as progress:
        result = job(
            config or [],
            loads=load or LOADS,
            steps=steps,
            length=length,
            learning_rate=learning_rate,
            seed=seed,
            data=data,
            reference=reference,
            out=out,
            progress=progress,
        )
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
        return
    from heldout.cli.console import Console, Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("configuration", "text", "bits of text", "memorized", "95 % from", "to"):
        table.add_column(column, justify="left" if column in ("configuration", "text") else "right")
    for each in result.filled:
        bounds = each.memorized.interval
        is_given = bounds is not None and not bounds.is_withheld
        ends = (f"{bounds.low:.3f}", f"{bounds.high:.3f}") if bounds and is_given else ("", "")
        table.add_row(
            each.config, each.text, f"{each.load:.2f}", f"{each.memorized.value:.3f}", *ends
        )
    console.print(table)
    console.print("All in bits per parameter.\n")
    for text in [*(each.sentence for each in result.plateaus), *result.notes]:
        console.print(f"- {text}", markup=False)
    if result.report:
        console.print(f"report  {result.report}", markup=False, soft_wrap=True)
