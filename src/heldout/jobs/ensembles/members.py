"""The members of an ensemble: ordinary runs of ``heldout fit``, and what they say of the test."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from heldout.core.errors import Interrupted, UserError
from heldout.core.interrupt import StopRequest
from heldout.core.lock import alone_in
from heldout.core.progress import Progress, advance_to
from heldout.core.recipe import Recipe, recipe_from_table
from heldout.core.run import Run
from heldout.core.token_losses import TokenLosses
from heldout.jobs.fitting.fit import fit, resume
from heldout.lm.accelerator import training_device
from heldout.lm.load import load_model
from heldout.lm.measuring.token_nats import token_losses
from heldout.lm.quiet import quiet_libraries


def train_member(
    progress: Progress,
    request: StopRequest,
    *,
    target: dict[str, str],
    data: str,
    folder: str,
    number: int,
    recipe: str,
) -> None:
    """One member's run in ``folder``, trained or resumed unless it is complete.

    ``recipe`` is that of the ensemble, in TOML. The request reaches the run's own.
    """
    place = Path(folder) / _name(number)
    try:
        trusts = bool(recipe_from_table(tomllib.loads(recipe)).own_code)
        if (place / "environment.json").exists():
            if Run.open(place).status["state"] != "complete":
                resume(place, trust_code=trusts, progress=progress)
            return
        whole = recipe_from_table(tomllib.loads(recipe))
        fit(
            target["model"],
            data,
            out=place,
            recipe=_member_recipe(Path(folder), number, whole),
            from_scratch=target["from_scratch"],
            progress=progress,
        )
    except Interrupted:
        raise Interrupted(
            f"Stopped. The same command with --out {folder} goes on where it was."
        ) from None


def _member_recipe(folder: Path, number: int, recipe: Recipe) -> Recipe:
    """Another seed; what the first member's searches chose, and its control condition only once."""
    if number == 0:
        return recipe
    first = Run.open(folder / _name(0))
    rate = first.read_json("result.json")["learning_rate"]
    return first.recipe.replace(
        train={"seed": (recipe.train.seed + number) % 2**32, "learning_rate": rate},
        control={"fixed_epochs": 0.0},
    )


def refuse_other_data(runs: Sequence[Run]) -> None:
    """UserError where members were trained on different rows."""
    parts = [run.read_json("data.json")["sha256_parts"] for run in runs]
    for run, of_run in zip(runs, parts, strict=True):
        if of_run != parts[0]:
            raise UserError(
                f"{run.folder} was trained on other rows than {runs[0].folder}: the data has "
                "changed meanwhile. Start the ensemble anew."
            )


def member_runs(folder: Path, members: int) -> list[Run]:
    """The members' runs; UserError where one is missing or not complete."""
    runs = [Run.open(folder / _name(number)) for number in range(members)]
    for run in runs:
        if run.status["state"] != "complete":
            raise UserError(f"{run.folder} is not complete: go on with heldout ensemble --out.")
    return runs


def read_member(run: Run, progress: Progress) -> TokenLosses:
    """The kept model's losses on the sealed test, token by token; kept in the run's folder."""
    path = run.path("evaluations/best-test-tokens.npz")
    if path.exists():
        return TokenLosses.load(path)
    with alone_in(run.folder):
        recipe = run.recipe
        rows = run.open_test("losses of each token, for the ensemble", once=True)
        total = run.read_json("data.json")["rows"]["test"]
        with quiet_libraries(), progress.stage(f"reading the test as {run.folder.name}", total):
            loaded = load_model(
                str(run.best),
                device=training_device(),
                trust_remote_code=recipe.model.trust_remote_code,
            )
            found = token_losses(
                loaded.model,
                rows,
                loaded.tokenizer,
                max_length=recipe.data.max_length,
                batch_size=recipe.eval.batch_size,
                progress=advance_to(progress),
            )
        found.save(path)
    return found


def stacked_nats(read: Sequence[TokenLosses]) -> np.ndarray:
    """Losses (K, N) of models that read the same tokens of the same rows."""
    for each in read:
        if not np.array_equal(each.num_tokens_D, read[0].num_tokens_D):
            raise UserError(
                "The members cut the test rows into other tokens: an ensemble needs one tokenizer "
                "and one data.max_length."
            )
    return np.stack([each.nats_N for each in read])


def unfinished(runs: Sequence[Run]) -> list[str]:
    """A note where training ended while the held-out loss was still falling."""
    found = [run.read_json("result.json") for run in runs]
    num = sum(each["best_step"] == each["last_step"] for each in found)
    if not num:
        return []
    return [
        f"{num} of {len(runs)} trainings had their lowest held-out loss at the end: more epochs "
        "(train.max_epochs) would lower it."
    ]


def _name(number: int) -> str:
    return f"member-{number}"
