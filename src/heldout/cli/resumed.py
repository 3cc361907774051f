"""What is looked at before a run is resumed, and before what trains it is imported."""

from pathlib import Path

from heldout.core.errors import UserError
from heldout.core.run import Run


def refuse_unfit_run(resume: Path | None, trust_code: bool) -> None:
    """UserError for what is no run, and for one that runs code of its own, unless it is trusted."""
    if resume is not None:
        run = Run.open(resume)
        if not trust_code:
            run.refuse_own_code()
    elif trust_code:
        raise UserError("--trust-code goes with --resume RUN: a new run has settings of its own.")


def refuse_changes(resume: Path) -> None:
    """UserError for what a run that is gone on with cannot take."""
    run, ended = Run(resume), ""
    if run.path("status.json").is_file() and Run.open(resume).status.get("state") == "complete":
        ended = run.words_for_more()
    raise UserError(
        "--resume goes on with the settings in the run folder: leave out --model, --data, "
        f"--minutes, --tracker and --set, or start a new run. {ended}"
    )
