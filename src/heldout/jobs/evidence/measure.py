"""Open the sealed test part once, and put the base and every other model of the run beside it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from heldout.core.errors import UserError
from heldout.core.losses import DocumentLosses
from heldout.core.pass_statistics import Generations, PassStatistics
from heldout.core.probe import TaskScores, VerbatimMemorization
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.run_files import RunSample
from heldout.core.token_size import TokenSize
from heldout.jobs.evidence.kept import Keys
from heldout.jobs.evidence.model_on_part import read_part, write_part
from heldout.jobs.evidence.saved import save_generations, save_statistics
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.metrics import Metric
from heldout.jobs.kit.parts import sample_rows
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.token_size import token_size_of
from heldout.lm.accelerator import training_device
from heldout.lm.characters import decoded
from heldout.lm.generate import continuations, new_tokens
from heldout.lm.load import LoadedModel, load_model
from heldout.lm.measuring.generations import with_nats
from heldout.lm.measuring.memorization_prompt import memorization_prompt
from heldout.lm.measuring.pass_statistics import suffix_lengths
from heldout.lm.tokenize import prompt_ids


def measure_on_test(
    run: Run,
    target: Target,
    recipe: Recipe,
    metric: Metric | None,
    progress: Progress,
    before: Callable[[str], None] = lambda model: None,
) -> None:
    """All that one pass tells of every model on the test part and on training rows.

    ``before`` is called with the name of each model before it is read, the control's last.

    One opening of the test part. Losses of all test rows and of the followed training rows go to
    ``evaluations/``, with the statistics of ``eval.max_recital_rows`` of both; which rows are
    memorized, task scores and continuations go to files of their own.
    """
    models = ["base", "best", "last"]
    if recipe.control.fixed_epochs:
        models.append("fixed_epochs")
    rows = run.open_test("losses of " + ", ".join(models), once=True)
    followed = set(run.read_json("data.json")["followed_rows"])
    scores: dict[tuple[str, str], TaskScores] = {}
    memorization: dict[tuple[str, str], VerbatimMemorization] = {}
    written: dict[str, tuple[Generations, str]] = {}  # with the key of what was written
    with progress.stage("sealed test", len(models)):
        for name in models:
            before(name)
            loaded = _load(run, target, recipe, name)
            size = token_size_of(run, loaded.tokenizer)
            keys = Keys(loaded, recipe, size)
            for part, source in (("train", run.read_rows("train")), ("test", rows)):
                sampled = sample_rows(source, recipe.eval.max_recital_rows, recipe.data.seed)
                found = read_part(loaded, sampled, recipe, size)
                path = run.path(f"evaluations/{name}-{part}-readings.npz")
                save_statistics(found, path, keys.of_reading(sampled))
                memorization[name, part] = VerbatimMemorization.of(found)
                if part == "train":
                    # The followed rows are drawn alike, so that they are among these.
                    run.save_losses(name, part, _followed(found, followed, loaded, run, recipe))
                else:
                    run.save_losses(name, part, _of_all(rows, found, loaded, recipe))
                if part == "test" and name in ("base", "best"):
                    key = keys.of_writing(sampled)
                    written[name] = write_part(loaded, sampled, recipe, size), key
            if metric and name in ("base", "best"):
                scores[name, "test"] = _score(loaded, rows, recipe, metric, size)
            progress.advance(1, name)
    _save_written(run, written, _load(run, target, recipe, "base"))
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
    # Last, because it marks this stage as done.
    run.write_json(
        "recitals.json",
        {
            f"{model}-{part}": {
                "recited": found.memorized_D.tolist(),
                "groups": found.groups_D.tolist(),
                "rows": found.row_index_D.tolist(),
            }
            for (model, part), found in memorization.items()
        },
    )


def load_memorization(run: Run) -> dict[tuple[str, str], VerbatimMemorization]:
    """What ``measure_on_test`` saved."""
    if not run.path("recitals.json").exists():
        return {}
    return {
        (key.split("-")[0], key.split("-")[1]): VerbatimMemorization(
            np.array(entry["recited"], dtype=bool),
            np.array(entry["groups"], dtype=str),
            np.array(entry["rows"], dtype=int),
        )
        for key, entry in run.read_json("recitals.json").items()
    }


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
    """Greedy continuations by every model, of held-out prompts and of memorized training rows."""
    heldout = list(islice(run.read_rows("validation"), recipe.eval.num_samples))
    memorized = _memorized_rows(run, recipe.eval.num_samples // 2)
    if not heldout and not memorized:
        return
    models = ["base", "best", "last"]
    if run.path("fixed_epochs").is_dir():
        models.append("fixed_epochs")
    samples: list[RunSample] = []
    with progress.stage("samples", len(models)):
        for name in models:
            loaded = _load(run, target, recipe, name)
            model, tokenizer = loaded.model, loaded.tokenizer
            size = token_size_of(run, tokenizer)
            prefix_tokens, _ = suffix_lengths(size)["short"]
            prompts = [prompt_ids(row, tokenizer, size) for row in heldout]
            prompts += [
                memorization_prompt(row, tokenizer, recipe.data.max_length, prefix_tokens)
                for row in memorized
            ]
            if not samples:
                samples = [
                    RunSample(
                        "validation" if number < len(heldout) else "train",
                        decoded(tokenizer, ids),
                        reference,
                    )
                    for number, (ids, reference) in enumerate(prompts)
                ]
            num_new = new_tokens(model, recipe.eval.max_new_tokens, size)
            texts = continuations(model, tokenizer, [ids for ids, _ in prompts], num_new)
            samples = [
                replace(sample, **{name: text}) for sample, text in zip(samples, texts, strict=True)
            ]
            progress.advance(1, name)
    run.write_json("samples.json", [sample.to_json() for sample in samples])


def _memorized_rows(run: Run, most: int) -> list[Row]:
    """Training rows that some model memorized, those first that most models did."""
    counts: Counter[int] = Counter()
    for (_, part), found in load_memorization(run).items():
        if part == "train":
            counts.update(found.row_index_D[found.memorized_D].tolist())
    chosen = {index for index, _ in counts.most_common(most)}
    return [row for row in run.read_rows("train") if row.index in chosen]


def _load(run: Run, target: Target, recipe: Recipe, name: str) -> LoadedModel:
    """One model, as it lies on disk."""
    if name == "base":
        return target.load(recipe)
    folder: Path = run.path(name)
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: the run was not trained to its end.")
    return load_model(
        str(folder),
        device=training_device(),
        trust_remote_code=recipe.model.trust_remote_code,
    )


def _save_written(run: Run, written: dict[str, tuple[Generations, str]], base: LoadedModel) -> None:
    """What models wrote, with its loss under the base model: one pass over all of it."""
    scored = with_nats([each for each, _ in written.values()], base.model, base.tokenizer)
    for (name, (_, key)), found in zip(written.items(), scored, strict=True):
        save_generations(found, run.path(f"evaluations/{name}-generations.json"), key)


def _followed(
    found: PassStatistics, followed: set[int], loaded: LoadedModel, run: Run, recipe: Recipe
) -> DocumentLosses:
    """Losses of the training rows that were followed, from the pass where it read them all."""
    places = [place for place, row in enumerate(found.row_index_D) if int(row) in followed]
    if len(places) == len(followed):
        return found.losses.at(places)
    rows = [row for row in run.read_rows("train") if row.index in followed]
    return losses_of(loaded.model, loaded.tokenizer, rows, recipe)


def _of_all(
    rows: Iterable[Row], found: PassStatistics, loaded: LoadedModel, recipe: Recipe
) -> DocumentLosses:
    """Losses of all rows, of those that a pass has read already from it."""
    read = set(found.row_index_D.tolist())
    others = (row for row in rows if row.index not in read)
    both = DocumentLosses.concatenate(
        [found.losses, losses_of(loaded.model, loaded.tokenizer, others, recipe)]
    )
    order = [*found.row_index_D.tolist(), *(row.index for row in rows if row.index not in read)]
    place_of = {index: place for place, index in enumerate(order)}
    return both.at([place_of[row.index] for row in rows])


def _score(
    loaded: LoadedModel, rows: Iterable[Row], recipe: Recipe, metric: Metric, size: TokenSize
) -> TaskScores:
    chosen = sample_rows(rows, recipe.eval.metric_rows, recipe.data.seed)
    model, tokenizer = loaded.model, loaded.tokenizer
    prompts = [prompt_ids(row, tokenizer) for row in chosen]
    num_new = new_tokens(model, recipe.eval.max_new_tokens, size)
    texts = continuations(model, tokenizer, [ids for ids, _ in prompts], num_new)
    values = [metric(text, reference) for text, (_, reference) in zip(texts, prompts, strict=True)]
    return TaskScores(recipe.eval.metric, np.array(values), np.array([row.group for row in chosen]))
