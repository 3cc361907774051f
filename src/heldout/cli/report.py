"""``heldout report``: parse, call the job, print."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from heldout.core.errors import UserError
from heldout.core.language import say


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default report.html in the run folder.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Write nothing: tell which files have changed since the report was written; exit "
            "code 1 if any has.",
        ),
    ] = False,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Leave out rows, samples, names and paths, to send the page to others; default "
            "report-redacted.html in the run folder.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the report of a run again, or put several runs side by side."""
    if verify:
        if redact:
            raise UserError("--verify writes nothing: leave --redact out.")
        _verify(runs, out, as_json)
        return
    from heldout.jobs.report import write_report as job

    written = job(runs, out=out, redact=redact)
    if as_json:
        print(json.dumps({"schema": "heldout.report/1", "report": str(written)}))
    else:
        print(written)


def _verify(runs: list[Path], out: Path | None, as_json: bool) -> None:
    if out is not None:
        raise UserError("--verify writes nothing: leave --out out.")
    from heldout.core.run import Run
    from heldout.jobs.kit.hashes import verify

    found = [(run, verify(run)) for run in map(Run.open, runs)]
    if as_json:
        told = [{"run": str(run.folder), "holds": one.holds, **asdict(one)} for run, one in found]
        print(json.dumps({"schema": "heldout.verify/1", "runs": told}))
    else:
        for run, one in found:
            for name in one.changed:
                print(say(f"{run.folder}: {name} has changed since the report was written."))
            for name in one.missing:
                print(say(f"{run.folder}: {name} is missing."))
            if one.holds:
                print(say(f"{run.folder}: all {one.num_files} files are as they were written."))
    if not all(one.holds for _, one in found):
        raise typer.Exit(1)
