"""``heldout report``: parse, call the job, print."""

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default report.html in the run folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the report of a run again, or put several runs side by side."""
    from heldout.jobs.report import write_report as job

    written = job(runs, out=out)
    if as_json:
        print(json.dumps({"schema": "heldout.report/1", "report": str(written)}))
    else:
        print(written)
