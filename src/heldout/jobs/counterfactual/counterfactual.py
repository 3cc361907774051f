"""Which rows a model knows only because it was trained on them: the recipe of a run, retrained on
halves of its rows.

Counterfactual memorization (Zhang et al. 2021, "Counterfactual Memorization in Neural Language
Models"): accuracy on a row of models trained with it, minus that of models trained without it. A
common row is known without being trained on, so it scores 0, however well the model repeats it; a
rare one that is repeated scores high. Influence is the same difference, measured on held-out rows.

Models come in pairs of complementary halves with one seed, so that every row has as many models
with as without it, and each pair gives one independent difference. Held-out rows are dealt to the
halves as well, though nobody trains on them: that is what chance alone reaches.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from heldout.core.damage import refuse_damaged
from heldout.core.errors import UserError
from heldout.core.lock import alone_in
from heldout.core.progress import Progress
from heldout.core.results.counterfactual import Counterfactual
from heldout.core.run import Run
from heldout.jobs.counterfactual.memorized_rows import counterfactual_of
from heldout.jobs.counterfactual.models import FOLDER, HalfModels
from heldout.jobs.kit.given_model import ModelSource, given_base
from heldout.jobs.kit.places import Needs, Places
from heldout.jobs.kit.target import Target
from heldout.lm.quiet import quiet_libraries

LEAST_MODELS = 8
LEAST_ROWS = 10


def counterfactual(
    target: str | Path | Run,
    *,
    num_models: int = 16,
    epochs: float | None = None,
    model: ModelSource | None = None,
    tokenizer: Any = None,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Counterfactual:
    """Retrain the run ``target`` on halves of its rows, and tell what took each row to be learned.

    num_models: even; each trains on a random half of the rows. Intervals shrink with its root.
    epochs: of each model; by default those of the run's best checkpoint.
    target: the folder of a run, or the ``heldout.Run`` itself; a model alone does not say which
    rows it was trained on. model, tokenizer: again, where the run was given them as objects.
    trust_code: run code that the run's recipe names, a model's own; else UserError where it names
    any.
    Rows are drawn one by one, so that what a row shares with its duplicates or its own document
    counts as learned, not as memorized. Held-out rows are those of the run's validation part.

    Costs ``num_models`` trainings on half of the rows and as many passes over all. Finished models
    are kept in the run's folder ``counterfactual``: a second call goes on, and one with more models
    adds to them. Writes ``counterfactual.json`` there.

    Raises UserError for what cannot be told, Interrupted on Ctrl-C.
    """
    start = time.monotonic()
    if num_models < LEAST_MODELS or num_models % 2:
        raise UserError(
            f"--num-models must be even and {LEAST_MODELS} or more, got {num_models}: each row is "
            f"then known to half of them, and under {LEAST_MODELS // 2} pairs no interval means "
            "much."
        )
    run = _opened(target)
    target = run.folder
    if not trust_code:
        run.refuse_own_code()
    refuse_damaged(run)
    if not run.path("result.json").exists():
        raise UserError(f"{target} has not finished its training: `heldout fit --resume {target}`.")
    found, known = run.read_json("result.json"), run.read_json("environment.json")
    epochs = found["best_epoch"] if epochs is None else epochs
    if not epochs > 0:
        raise UserError(
            f"{target} kept its base model, which was trained on no row: give --epochs, of each "
            "model."
            if found["best_epoch"] == 0
            else f"--epochs must be above 0, got {epochs}."
        )
    train, heldout = list(run.read_rows("train")), list(run.read_rows("validation"))
    if len(train) < LEAST_ROWS:
        raise UserError(
            f"{target} was trained on {len(train)} rows: halves of fewer than {LEAST_ROWS} tell "
            "nothing."
        )
    with given_base(run, model, tokenizer) as base, alone_in(run.folder):
        made_with = {"epochs": epochs, "learning_rate": found["learning_rate"]}
        folder = run.path(FOLDER)
        folder.mkdir(exist_ok=True)
        if (folder / "made_with.json").exists():
            before = run.read_json(f"{FOLDER}/made_with.json")
            if before != made_with:
                raise UserError(
                    f"--epochs: {folder} holds models of {before['epochs']:g} epochs, asked for "
                    f"{epochs:g}: give the same, or remove that folder."
                )
        else:
            run.write_json(f"{FOLDER}/made_with.json", made_with)
        models = HalfModels(
            run,
            Target(base, known["from_scratch"]),
            train,
            heldout,
            epochs,
            found["learning_rate"],
            progress or Progress(),
            Places.kept_in(folder, lambda: _places(run, found, epochs, num_models)),
        )
        with quiet_libraries():
            read_train, read_heldout = models.read(num_models)
        result = replace(
            counterfactual_of(read_train, read_heldout, seed=run.recipe.data.seed),
            target=str(target),
            num_models=num_models,
            epochs=epochs,
            learning_rate=found["learning_rate"],
            seconds=time.monotonic() - start,
        )
        run.write_json(f"{FOLDER}/counterfactual.json", result.to_json())
    return result


def _opened(target: Any) -> Run:
    if isinstance(target, Run):
        return target
    if not isinstance(target, str | Path):
        raise UserError(
            f"target must be the folder of a run of heldout fit, got {type(target).__name__}: "
            "models are retrained on its rows with its recipe, which a model does not hold."
        )
    return Run.open(Path(target))


def _places(run: Run, found: dict[str, Any], epochs: float, num_models: int) -> Places:
    """As what the run itself took tells; ``found`` is its result."""
    trained = max(found["last_epoch"], 1e-9)
    seconds = found["seconds_training"] / trained * epochs / 2
    needs = Needs(1e9 * run.status.get("peak_gb", 0.0), seconds)
    return Places.plan(run.recipe, num_models, needs)
