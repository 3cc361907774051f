"""``heldout plan laws``: parse, call the job, print."""

from pathlib import Path
from typing import Annotated

import typer


def laws(
    runs: Annotated[Path, typer.Argument(metavar="RUNS.csv", help="One finished run a line.")],
    law: Annotated[
        str, typer.Option(help="A law of `heldout list law`; default: the best forecaster.")
    ] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="Map N, D, U, epochs, C, loss, group or tokenizer, as D=tokens_b*1e9.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Keep these rows only.")
    ] = None,
    counted: Annotated[str, typer.Option(help="How N was counted: total or non-embedding.")] = "",
    loss_unit: Annotated[
        str, typer.Option(help="nats-per-token, bits-per-byte or perplexity.")
    ] = "",
    uniform_loss: Annotated[
        float | None,
        typer.Option(
            help="Loss of a uniform guess, ln(vocabulary) in nats; for laws that saturate."
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(help="Direction of the forecast: compute, unique or epochs; default all."),
    ] = None,
    delta: Annotated[float, typer.Option(help="Of the Huber loss of log residuals.")] = 1e-3,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write laws.json and report.html here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit scaling laws to finished runs, choose one by its forecasts, and say what is unknown."""
    from heldout.cli.progress import console_progress
    from heldout.cli.show import show_laws
    from heldout.jobs.planning.fitted_law import AXES, OwnRuns
    from heldout.jobs.planning.laws import laws as job

    with console_progress() as progress:
        result = job(
            OwnRuns(runs, column or [], where or [], counted, loss_unit, uniform_loss),
            law=law,
            axes=axis or tuple(AXES),
            delta=delta,
            out=out,
            progress=progress,
        )
    show_laws(result.to_json(), as_json)
