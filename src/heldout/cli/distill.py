"""``heldout distill``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from heldout.cli import completing


def distill(
    ensemble: Annotated[Path, typer.Argument(help="The folder that `heldout ensemble` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run folder; default `distilled` in it."),
    ] = None,
    weight: Annotated[
        float, typer.Option(help="Of the ensemble's predictions; the text itself has the rest.")
    ] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="Above 1 flattens the predictions before they are compared.")
    ] = 1.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completing.settings,
            help="Changes of the ensemble's recipe.",
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Run code that the members' recipes name, a metric or a model's own.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train one model on what an ensemble predicts, and show the share of its gain that is kept."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.ensembles import distill as job

    values: dict[str, Any] = {
        "out": out,
        "weight": weight,
        "temperature": temperature,
        "settings": settings or [],
        "trust_code": trust_code,
    }
    if dry_run:
        from heldout.cli.show import show_plan

        show_plan(job.dry_run_distill(ensemble, **values), as_json)
        return
    with console_progress() as progress:
        result = job.distill(ensemble, **values, progress=progress)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
        return
    from heldout.cli.console import Console
    from heldout.core.measurement import Interval

    console = Console()
    console.print(result.headline, markup=False)
    student = result.measurement("student").to_json()
    console.print(f"student  {student['value']:.4f} nats per token on the sealed test")
    for control, contrast in student["contrasts"].items():
        console.print(
            f"         {contrast['difference']:+.4f} against {control} "
            f"(95 %: {Interval.from_json(contrast['interval']).words('+.4f')})",
            markup=False,
        )
    for note in result.notes:
        console.print(f"- {note}", markup=False)
    console.print(f"best checkpoint  {result.best}", markup=False, soft_wrap=True)
    console.print(f"report           {result.run}/report.html", markup=False, soft_wrap=True)
