"""A training begins with what the winning trial of the learning-rate search has done of it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from heldout.core.files import write_text
from heldout.core.losses import DocumentLosses
from heldout.jobs.kit.beginning import Beginning, Logged
from heldout.jobs.kit.checkpoints import last_step, load_weights, save_model
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.find_rate import read_search, write_search
from heldout.jobs.kit.prepare import load_prepared, regularizers_of
from heldout.training.loop import UNREPORTED


def begin_with_trial(condition: Condition) -> None:
    """Put the trial at the condition's rate, on the same rows, where ``Condition.train`` goes on.

    The history, losses and best checkpoint become those that the training would have left at the
    trial's end, bit for bit; what a search does not need is measured here: the training rows, on
    the weights that the trial kept. Does nothing where the training has a checkpoint already, and
    where there is no trial by this recipe. The checkpoint is moved last: after a kill before that
    all is made again.
    """
    context, recipe = condition.context, condition.context.recipe
    run, folder = context.run, context.run.path(condition.folder)
    beginning = Beginning.of(run, condition.learning_rate)
    checkpoint = beginning.checkpoint
    if checkpoint is None or beginning.trial(recipe) is None or last_step(folder) is not None:
        return
    model, tokenizer = load_prepared(context.target, recipe)
    kept = beginning.logged
    at: Logged = kept[0]

    def measure(part: str) -> DocumentLosses:
        assert part == "train", "the trial has measured the validation rows"
        return losses_of(model, tokenizer, context.texts.beside, recipe)

    def save(path: Path) -> None:
        if at.step:
            shutil.copytree(beginning.weights(at.step), path)
        else:
            save_model(model, tokenizer, path)

    keeper = condition.keeper(model, regularizers_of(recipe), measure=measure, save=save)
    keeper.restore(-1)
    with context.progress.stage("going on from the best learning rate's trial", kept[-1].step):
        for before, at in pairwise([kept[0], *kept]):
            context.progress.advance(at.step - before.step)
            if at.step:
                load_weights(model, beginning.weights(at.step))
            keeper.record(beginning.evaluation(at), at.training_loss, at.learning_rate)
    _tell_trackers(checkpoint, run.history(condition.history_name))
    context.check_interrupt()
    folder.mkdir(parents=True, exist_ok=True)
    handed_on = int(checkpoint.name.split("-")[1])
    write_search(run, replace(read_search(run), handed_on=handed_on))
    checkpoint.rename(folder / checkpoint.name)
    beginning.remove()


def _tell_trackers(checkpoint: Path, history: list[dict[str, Any]]) -> None:
    """Complete the Trainer's log with our figures, for the trackers to hear when it goes on."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    measured = {entry["step"]: entry for entry in history}

    def complete() -> Iterator[dict[str, Any]]:
        for entry in state["log_history"]:
            if "validation_nll" in entry:  # from before a kill
                continue
            yield entry
            if "loss" in entry:
                figures = {k: measured[entry["step"]][k] for k in ("validation_nll", "train_nll")}
                yield {**figures, "epoch": entry["epoch"], "step": entry["step"]}

    state["log_history"] = list(complete())
    write_text(path, json.dumps(state, indent=2) + "\n")
    (checkpoint / UNREPORTED).touch()
