"""``heldout ensemble``: parse, call the job, print."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heldout.cli import completing

if TYPE_CHECKING:
    from heldout.core.results.ensemble import EnsembleResult


def ensemble(
    model: Annotated[str, typer.Option("--model", "-m", help="As for `heldout fit`.")],
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", help="jsonl, json, csv, parquet, txt, a folder of these, or a Hub id."
        ),
    ],
    members: Annotated[int, typer.Option(help="Trainings that differ in their seed alone.")] = 5,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For all of it; go on there.")
    ] = None,
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
    from_scratch: Annotated[
        str,
        typer.Option(
            metavar="CONFIG", help="Start from a config.json; --model then names the tokenizer."
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train several models, average their predictions, and show what more of them would gain."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.ensembles import ensemble as job

    arguments: dict[str, Any] = {
        "members": members,
        "out": out,
        "recipe": recipe,
        "settings": settings or [],
        "from_scratch": from_scratch,
    }
    if dry_run:
        from heldout.cli.show import show_plan

        show_plan(job.dry_run_ensemble(model, data, **arguments), as_json)
        if not as_json:
            print(f"That is one member of {members}.")
        return
    with console_progress() as progress:
        result = job.ensemble(model, data, **arguments, progress=progress)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
    else:
        _show(result)


def _show(result: "EnsembleResult") -> None:
    from heldout.cli.console import Console, Table

    console = Console()
    console.print(result.headline, markup=False)
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in ("members", "nats per token", "95 % from", "to", "gain", "95 % from", "to"):
        table.add_column(column, justify="right")
    for each in result.sizes:
        numbers = (
            each.nats_per_token,
            each.interval.low,
            each.interval.high,
            each.gain,
            each.gain_interval.low,
            each.gain_interval.high,
        )
        table.add_row(str(each.size), *(_ends(number) for number in numbers))
    if result.limit is not None:
        bounds = result.limit.limit.interval
        ends = (result.limit.limit.value, bounds.low, bounds.high)
        table.add_row("without end", *(_ends(number) for number in ends))
    console.print(table)
    cost = result.cost
    console.print(
        f"\nPredicting with all takes {cost.forwards} forwards a token and {cost.parameters:,} "
        f"parameters in memory, against one and {cost.parameters_of_one:,}.",
        markup=False,
    )
    for note in result.notes:
        console.print(f"- {note}", markup=False)
    console.print(f"report  {result.report}", markup=False, soft_wrap=True)


def _ends(number: float) -> str:
    return f"{number:.4f}" if abs(number) < float("inf") else "–"
