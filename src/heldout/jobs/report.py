"""Write reports from run folders, also of runs that did not end."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.run import Run
from heldout.jobs.kit.hashes import write_hashes
from heldout.report.page import write_comparison, write_redacted_report, write_run_report

REDACTED = "report-redacted.html"


def write_report(
    runs: Sequence[str | Path], *, out: str | Path | None = None, redact: bool = False
) -> Path:
    """One HTML page; several runs side by side need ``out``. Returns the file written.

    redact: without rows, samples, names and paths, by default as ``report-redacted.html`` in the
    run folder.
    """
    opened = [Run.open(Path(folder)) for folder in runs]
    if not opened:
        raise UserError("report needs at least one run folder.")
    hyperfitted = [run for run in opened if _job(run) == "hyperfit"]
    if redact:
        if hyperfitted:
            raise UserError(
                f"--redact: {hyperfitted[0].folder} is a run of `heldout hyperfit`, whose page is "
                "of texts: send hyperfit.json without them, or the page of a run of fit."
            )
        if len(opened) > 1:
            raise UserError(f"--redact writes the page of one run, got {len(opened)}: give one.")
        return write_redacted_report(
            opened[0], _file(opened[0].path(REDACTED) if out is None else out)
        )
    if hyperfitted:
        return _rewritten(hyperfitted[0], opened, out)
    if out is None:
        if len(opened) > 1:
            raise UserError("report of several runs needs --out FILE.html.")
        write_run_report(opened[0])
        write_hashes(opened[0], only="report.html")
        return opened[0].path("report.html")
    return write_comparison(opened, _file(out))


def _file(out: str | Path) -> Path:
    """A file that can be written, in a folder that is there."""
    target = Path(out)
    if target.is_dir():
        raise UserError(f"--out {target} is a folder: give the name of an HTML file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _job(run: Run) -> str:
    """Empty where it is not known, as in a run that was cut short or has a damaged file."""
    try:
        return str(run.read_json("environment.json")["job"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _rewritten(run: Run, opened: Sequence[Run], out: str | Path | None) -> Path:
    """The page of one finished hyperfit run, in its own folder."""
    if len(opened) > 1 or out is not None:
        raise UserError(
            f"{run.folder} is a run of `heldout hyperfit`, whose page stands alone in its folder: "
            "give it without other runs and without --out."
        )
    if not run.path("hyperfit.json").exists():
        raise UserError(
            f"{run.folder} has not ended: use `heldout hyperfit --resume {run.folder}`."
        )
    from heldout.jobs.hyperfitting.result import conclude_hyperfit

    return conclude_hyperfit(run).report
