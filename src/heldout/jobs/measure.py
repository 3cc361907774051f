"""Open the sealed test part once, and put the base, the best and the other arms beside it."""

from pathlib import Path

import numpy as np

from heldout.core.errors import UserError
from heldout.core.probe import TaskScores
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.jobs.arms import Target, losses_of
from heldout.jobs.metrics import Metric
from heldout.lm.generate import continuations
from heldout.lm.load import load_model
from heldout.lm.tokenize import prompt_ids


def measure_on_test(
    run: Run,
    target: Target,
    recipe: Recipe,
    metric: Metric | None,
    progress: Progress,
) -> dict[tuple[str, str], TaskScores]:
    """Losses of every arm on the test part and on the followed training rows; one opening.

    Losses go to ``evaluations/``; the task scores of base and best are returned and saved too.
    """
    models = ["base", "best"]
    if run.path("fixed_epochs").is_dir():
        models.append("fixed_epochs")
    models.append("last")
    rows = run.open_test("losses of " + ", ".join(models))
    followed = set(run.read_json("data.json")["followed_rows"])
    scores: dict[tuple[str, str], TaskScores] = {}
    with progress.stage("sealed test", len(models)):
        for name in models:
            model, tokenizer = _load(run, target, recipe, name)
            run.save_losses(name, "test", losses_of(model, tokenizer, rows, recipe))
            train_rows = (row for row in run.read_rows("train") if row.index in followed)
            run.save_losses(name, "train", losses_of(model, tokenizer, train_rows, recipe))
            if metric and name in ("base", "best"):
                scores[name, "test"] = _score(model, tokenizer, rows, recipe, metric)
            progress.advance(1, name)
    if scores:
        run.write_json(
            "scores.json",
            {
                f"{model}-{part}": {
                    "metric": found.metric,
                    "scores": found.scores_D.tolist(),
                    "groups": found.groups_D.tolist(),
                }
                for (model, part), found in scores.items()
            },
        )
    return scores


def load_scores(run: Run) -> dict[tuple[str, str], TaskScores]:
    """What ``measure_on_test`` saved."""
    if not run.path("scores.json").exists():
        return {}
    return {
        (key.split("-")[0], key.split("-")[1]): TaskScores(
            entry["metric"], np.array(entry["scores"]), np.array(entry["groups"])
        )
        for key, entry in run.read_json("scores.json").items()
    }


def write_samples(run: Run, target: Target, recipe: Recipe, progress: Progress) -> None:
    """Greedy continuations of a few held-out prompts by the base, the best and the last model."""
    rows = list(run.read_rows("validation"))[: recipe.eval.num_samples]
    if not rows or not recipe.eval.num_samples:
        return
    samples: list[dict[str, str]] = []
    models = ["base", "best", "last"]
    with progress.stage("samples", len(models)):
        for name in models:
            model, tokenizer = _load(run, target, recipe, name)
            prompts = [prompt_ids(row, tokenizer) for row in rows]
            if not samples:
                samples = [
                    {"prompt": tokenizer.decode(ids, skip_special_tokens=True), "reference": ref}
                    for ids, ref in prompts
                ]
            texts = continuations(
                model, tokenizer, [ids for ids, _ in prompts], recipe.eval.max_new_tokens
            )
            for sample, text in zip(samples, texts, strict=True):
                sample[name] = text
            progress.advance(1, name)
    run.write_json("samples.json", samples)


def _load(run: Run, target: Target, recipe: Recipe, name: str):
    """(model, tokenizer) of one arm, as it lies on disk."""
    if name == "base":
        loaded = target.load(recipe)
    else:
        folder: Path = run.path(name)
        if not folder.is_dir():
            raise UserError(f"{folder} is missing: the run was not trained to its end.")
        device = next(target.load(recipe).model.parameters()).device
        loaded = load_model(
            str(folder), device=str(device), trust_remote_code=recipe.model.trust_remote_code
        )
    return loaded.model, loaded.tokenizer


def _score(model, tokenizer, rows, recipe: Recipe, metric: Metric) -> TaskScores:
    chosen = []
    for row in rows:
        if row.kind == "text":
            raise UserError(
                "eval.metric needs prompts with answers; these rows are plain text. Remove it."
            )
        chosen.append(row)
        if len(chosen) == recipe.eval.metric_rows:
            break
    prompts = [prompt_ids(row, tokenizer) for row in chosen]
    texts = continuations(model, tokenizer, [ids for ids, _ in prompts], recipe.eval.max_new_tokens)
    values = [
        float(metric(text, reference)) for text, (_, reference) in zip(texts, prompts, strict=True)
    ]
    return TaskScores(recipe.eval.metric, np.array(values), np.array([row.group for row in chosen]))
