"""``heldout hyperfit``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from heldout.cli import completing
from heldout.core.errors import UserError


def hyperfit(
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A base model: folder, Hub id, GGUF, package:NAME."),
    ] = "",
    data: Annotated[
        str, typer.Option("--data", "-d", help="Text that the small sample is drawn from.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/<time>-<data>-<model>.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            autocompletion=completing.recipes, help="hyperfit, hyperfit_lora or a .toml file."
        ),
    ] = "hyperfit",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completing.settings,
            help="Such as data.test=FILE or hyperfit.num_samples=24.",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="With --resume: run the model's own code."),
    ] = False,
    judgements: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --resume: read a run's judgements.jsonl back, answered."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Overfit on purpose for varied, sharp greedy text, and show what it cost."""
    if resume is not None:
        if model or data or settings or out is not None or recipe != "hyperfit" or dry_run:
            raise UserError(
                "--resume goes on with the run as it is: leave out --model, --data, --out, "
                "--recipe, --set and --dry-run."
            )
    elif not (model and data):
        raise UserError("hyperfit needs --model and --data, or --resume RUN.")
    if judgements is not None and resume is None:
        raise UserError("--judgements FILE needs --resume RUN, the run that they are about.")
    from heldout.cli.resumed import refuse_unfit_run

    refuse_unfit_run(resume, trust_code)
    from heldout.cli.progress import console_progress
    from heldout.jobs.hyperfitting import hyperfit as job

    if judgements is not None:
        assert resume is not None
        _show_judgements(resume, judgements, as_json)
        return
    if dry_run:
        from heldout.cli.show import show_plan

        plan = job.dry_run_hyperfit(model, data, recipe=recipe, settings=settings or (), out=out)
        show_plan(plan, as_json)
        return
    with console_progress() as progress:
        if resume is not None:
            result = job.resume_hyperfit(resume, trust_code=trust_code, progress=progress)
        else:
            result = job.hyperfit(
                model, data, out=out, recipe=recipe, settings=settings or (), progress=progress
            )
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
    else:
        _show(result)


def _show(result: Any) -> None:
    from heldout.cli.console import Console, Table

    console = Console()
    console.print()
    for sentence in result.sentences:
        console.print(sentence, markup=False)
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in ("", "TTR", "seq-rep-4", "distance", "longest match"):
        table.add_column(column, justify="left" if not column else "right")
    for condition in result.to_json()["arms"]:
        values = (
            result.figures[f"{name}_{condition['name']}"]
            for name in ("ttr", "seq_rep_4", "distance", "longest_copy")
        )
        ttr, repetition, distance, longest = values
        table.add_row(
            condition["title"],
            f"{ttr:.3f}",
            f"{repetition:.3f}",
            f"{distance:.2f}",
            f"{longest:.0f}",
        )
    console.print(table)
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False)
    console.print()
    console.print(f"hyperfitted  {result.best}", markup=False, soft_wrap=True)
    console.print(f"report       {result.report}", markup=False, soft_wrap=True)


def _show_judgements(folder: Path, answered: Path, as_json: bool) -> None:
    from heldout.core.measurement import NotMeasured
    from heldout.core.run import Run
    from heldout.jobs.hyperfitting.judgements import import_judgements

    found = import_judgements(Run.open(folder), answered)
    if as_json:
        entry = {
            "schema": "heldout.judgements/1",
            "pairs": [
                {
                    "first": each.first,
                    "second": each.second,
                    "measurements": [measured.to_json() for measured in each.measurements],
                }
                for each in found
            ],
        }
        print(json.dumps(entry, allow_nan=False))
        return
    for each in found:
        for measured in each.measurements:
            if isinstance(measured, NotMeasured):
                print(f"{measured.name}: {measured.reason}")
                continue
            bounds = measured.interval
            assert bounds is not None
            print(f"{measured.name}: {measured.value:.2f} {bounds.brackets('.2f')}")
