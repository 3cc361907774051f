"""Write reports from run folders, also of runs that did not end."""

from collections.abc import Sequence
from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.run import Run
from heldout.jobs.kit.hashes import write_hashes
from heldout.report.page import write_comparison, write_run_report


def write_report(runs: Sequence[str | Path], *, out: str | Path | None = None) -> Path:
    """One HTML page; several runs side by side need ``out``. Returns the file written."""
    opened = [Run.open(Path(folder)) for folder in runs]
    if not opened:
        raise UserError("report needs at least one run folder.")
    hyperfitted = [run for run in opened if _job(run) == "hyperfit"]
    if hyperfitted:
        return _rewritten(hyperfitted[0], opened, out)
    if out is None:
        if len(opened) > 1:
            raise UserError("report of several runs needs --out FILE.html.")
        write_run_report(opened[0])
        write_hashes(opened[0], only="report.html")
        return opened[0].path("report.html")
    target = Path(out)
    if target.is_dir():
        raise UserError(f"--out {target} is a folder: give the name of an HTML file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_comparison(opened, target)


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
