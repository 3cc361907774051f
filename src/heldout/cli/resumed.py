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
