"""``heldout counterfactual``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

SHOWN = 10


def counterfactual(
    run: Annotated[Path, typer.Argument(help="A finished run of heldout fit.")],
    num_models: Annotated[
        int, typer.Option(help="To train, each on a random half of the rows; 8 or more, even.")
    ] = 16,
    epochs: Annotated[
        float | None, typer.Option(help="Of each model; default those of the run's best one.")
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Run code that the run's recipe names, a model's own."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Which rows does it know only because it was trained on them? By retraining without them."""
    from heldout.cli.resumed import refuse_unfit_run

    refuse_unfit_run(run, trust_code)
    from heldout.cli.progress import console_progress
    from heldout.jobs.counterfactual.counterfactual import counterfactual as job

    with console_progress() as progress:
        result = job(
            run, num_models=num_models, epochs=epochs, trust_code=trust_code, progress=progress
        )
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
    else:
        _show(result, run)


def _show(result: Any, run: Path) -> None:
    from heldout.cli.console import Console, Table

    console = Console()
    console.print(f"\n{result.sentence}", markup=False)
    if result.threshold is not None:
        console.print(
            f"Beyond {result.threshold:.1%} of the tokens a row counts as memorized: 1 % of rows "
            "that nobody trained on reach that by chance.",
            markup=False,
        )
    table = Table(box=None, pad_edge=False)
    for name in ("row", "memorized", "95 % interval", "base", "without it", "with it", "text"):
        table.add_column(name, justify="left" if name == "text" else "right", no_wrap=True)
    for row in result.rows[:SHOWN]:
        table.add_row(
            str(row.row),
            f"{row.memorized:.1%}" + ("" if row.is_clear else " ?"),
            row.interval.words(".1%"),
            f"{row.base_nats:.2f}",
            f"{row.without_nats:.2f}",
            f"{row.with_nats:.2f}",
            " ".join(row.text.split())[:40].replace("[", "\\["),
        )
    console.print()
    console.print(table)
    console.print(
        "memorized: share of tokens known to models with the row, minus to those without it; "
        "losses in nats per token. From base to without is learned from others, from without to "
        "with is memorized.",
        markup=False,
    )
    for each in result.influences[:3]:
        console.print(
            f"A row of {each.train_group} changes held-out row {each.heldout_row} by "
            f"{each.change:+.1%}.",
            markup=False,
        )
    path = run / "counterfactual" / "counterfactual.json"
    console.print(f"all rows  {path}", markup=False, soft_wrap=True)
