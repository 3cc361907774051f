"""The main training of a run with a validation part, and what regularizers do after its end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from heldout.core.losses import DocumentLosses
from heldout.core.regularizer import overrides_hook
from heldout.jobs.fitting.estimate import TRAINING
from heldout.jobs.fitting.result_file import write_result
from heldout.jobs.kit.checkpoints import load_weights, save_model
from heldout.jobs.kit.clean_losses import losses_of, measurer
from heldout.jobs.kit.condition import Condition, Trained
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.find_rate import read_search
from heldout.jobs.kit.hand_on import begin_with_trial
from heldout.jobs.kit.resumable import MAIN
from heldout.training.keeper import replace_folder
from heldout.training.preflight import check_base_loss


def train_main(
    context: RunContext, learning_rate: float, is_time_up: Callable[[], bool] = lambda: False
) -> None:
    """Train by the recipe; leaves ``best/``, ``last/``, losses and ``result.json``."""
    run = context.run
    condition = Condition(context, learning_rate, context.recipe.train.max_epochs)
    begin_with_trial(condition)
    context.progress.part(TRAINING)
    trained = condition.train(MAIN, before_first_step=_base_check(context), is_time_up=is_time_up)
    trained.save(run.last)
    context.check_interrupt(trained.outcome.interrupted)
    evaluations = trained.evaluations
    best = min(evaluations, key=lambda evaluation: evaluation.validation.nats_per_token)
    run.save_losses("base", "validation", evaluations[0].validation)
    run.save_losses("best", "validation", best.validation)
    run.save_losses("last", "validation", evaluations[-1].validation)
    finished = _finish(context, trained, best.validation)
    seconds = trained.outcome.seconds + read_search(run).seconds_handed_on
    write_result(
        context,
        replace(trained, outcome=replace(trained.outcome, seconds=seconds)),
        learning_rate=learning_rate,
        best_step=best.step,
        best_epoch=best.epoch,
        best_weights=best.weights,
        finished=finished,
    )


def _base_check(context: RunContext) -> Callable[[Any, Any], None]:
    """The base model's own loss, checked before the first step and added to the list."""
    run = context.run

    def check(model: Any, tokenizer: Any) -> None:
        sample = context.texts.validation[: context.recipe.eval.batch_size]
        base = losses_of(model, tokenizer, sample, context.recipe)
        entries = run.read_json("checks.json")
        if all(entry["name"] != "base model" for entry in entries):
            found = check_base_loss(base, model.get_input_embeddings().weight.shape[0])
            run.write_json("checks.json", entries + [vars(check) for check in found])

    return check


def _finish(context: RunContext, trained: Trained, best: DocumentLosses) -> dict[str, float]:
    """Let regularizers improve the best weights; kept only if the held-out loss falls."""
    run = context.run
    users = [r for r in trained.regularizers if overrides_hook(r, "finish")]
    if not users:
        return {}
    if run.path("finish.json").exists():
        return run.read_json("finish.json")
    model, tokenizer = trained.model, trained.tokenizer
    load_weights(model, run.best)
    measure = measurer(model, tokenizer, context.recipe, context.texts)
    figures: dict[str, float] = {}
    for regularizer in users:
        figures |= regularizer.finish(model, lambda: measure("validation"))
    found = measure("validation")
    if found.nats_per_token < best.nats_per_token:
        replace_folder(run.best, lambda folder: save_model(model, tokenizer, folder))
        run.save_losses("best", "validation", found)
    run.write_json("finish.json", figures)
    return figures
