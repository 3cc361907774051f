"""Overfit on purpose: train on a small sample to near-zero loss, and show what came of it.

Fine-tuning a language model on a small random sample until it predicts the sample almost surely
makes its greedy text long-lasting and varied, at the price of a worse loss on other text
(arXiv 2412.04318). The run stops on the training loss, keeps the checkpoint that writes best on
validation contexts, and opens the test part once for the comparison: the base model under several
decodings, the early-stopped model, the hyperfitted one with and without the citation blocker, and
what people wrote. Every stage leaves a file, so that a run can be resumed after any kill:
data -> training -> one file of text per condition -> measurements -> report.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.lock import alone_in
from heldout.core.progress import Progress, told
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.run_files import PreflightCheck
from heldout.jobs.hyperfitting.evaluate import evaluate
from heldout.jobs.hyperfitting.result import HyperfitResult, conclude_hyperfit
from heldout.jobs.hyperfitting.texts import Contexts, contexts_of
from heldout.jobs.hyperfitting.train import WindowSample, train_hyperfit
from heldout.jobs.kit.chosen_recipe import chosen_recipe
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.dry_run import DryRun
from heldout.jobs.kit.given_data import DataSource, given_data
from heldout.jobs.kit.given_model import ModelSource, given_again, given_model
from heldout.jobs.kit.parts import Parts, load_parts, read_parts, sample_rows
from heldout.jobs.kit.prepare import prepare
from heldout.jobs.kit.run_folder import (
    default_folder,
    existing_parent,
    note_warnings,
    open_started,
    start_run,
)
from heldout.jobs.kit.stages import stages_of
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.token_size import MOST_ROWS
from heldout.lm.characters import token_size
from heldout.lm.nll import context_length
from heldout.lm.quiet import quiet_libraries
from heldout.training.loop import Schedule
from heldout.training.preflight import (
    check_resources,
    check_windows,
)
from heldout.training.trackers import check_trackers
from heldout.training.update_floor import check_update_floor

FEW_SAMPLES, MANY_SAMPLES = 16, 4000  # windows: fewer are known to fail, more are no small sample


def hyperfit(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "hyperfit",
    settings: Sequence[str] = (),
    progress: Progress | None = None,
) -> HyperfitResult:
    """Hyperfit ``model`` on a sample of ``data``, compare its text, and write the report.

    Arguments are those of ``fit``. The sample is drawn from the training rows; contexts come from
    the validation and test rows, which ``data.validation`` and ``data.test`` may name as files of
    other domains, as in the paper. ``best/`` holds the hyperfitted model, ``early_stopped/`` the
    one of the lowest validation loss. Raises UserError before anything is written for what cannot
    work, Interrupted on Ctrl-C.
    """
    chosen = _chosen(recipe, settings)
    progress = told(progress)
    with given_data(data) as rows, given_model(model, tokenizer) as given:
        target = Target.of(given.name, "")
        folder = Path(out) if out else default_folder(given.shown, rows.shown)
        Run.refuse_occupied(folder)
        with quiet_libraries(), progress.stage("data and checks"):
            parts = rows.renamed(read_parts(rows.path, chosen))
            plan = _dry_run_of(parts, chosen, target, existing_parent(folder))
        with alone_in(folder):
            about = {"job": "hyperfit", "model": target.model, **given.about}
            run = start_run(folder, chosen, parts, plan.checks, **about)
            note_warnings(plan.checks, progress)
            result = _run_stages(run, target, progress)
            given.finish(run)
            return result


def resume_hyperfit(
    folder: str | Path,
    *,
    model: ModelSource | None = None,
    tokenizer: Any = None,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> HyperfitResult:
    """Go on with a run that was interrupted or killed; a complete one is only concluded again.

    model, tokenizer: again, where the run was given them as objects; another model is refused.
    trust_code: run a model's own code where the run's recipe says so; else UserError there.
    """
    with given_again(Run.open(Path(folder)), model, tokenizer) as given:
        run, known = open_started(folder, trust_code=trust_code)
        if known.get("job") != "hyperfit":
            raise UserError(f"{folder} is a run of `heldout fit`: use `heldout fit --resume`.")
        with alone_in(run.folder):
            result = _run_stages(run, Target(known["model"]), told(progress))
            given.finish(run)
            return result


def dry_run_hyperfit(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    recipe: str | Path | Recipe = "hyperfit",
    settings: Sequence[str] = (),
    out: str | Path | None = None,
) -> DryRun:
    """Everything up to the first step; nothing is written."""
    chosen = _chosen(recipe, settings)
    with given_data(data) as rows, given_model(model, tokenizer) as given, quiet_libraries():
        folder = Path(out) if out else default_folder(given.shown, rows.shown)
        Run.refuse_occupied(folder)
        parts = rows.renamed(read_parts(rows.path, chosen))
        return _dry_run_of(parts, chosen, Target.of(given.name, ""), existing_parent(folder))


def _chosen(recipe: str | Path | Recipe, settings: Sequence[str]) -> Recipe:
    chosen = chosen_recipe(recipe, settings)
    if chosen.train.learning_rate is None:
        raise UserError(
            "hyperfit searches no learning rate, because the held-out loss does not tell: set "
            "train.learning_rate, such as 3e-5 for all parameters, or use --recipe hyperfit."
        )
    unused = [
        name
        for name, wanted in (
            ("regularizers", chosen.regularizers),
            ("augment", chosen.augment),
            ("control.fixed_epochs", chosen.control.fixed_epochs),
            ("eval.metric", chosen.eval.metric),
        )
        if wanted
    ]
    if unused:
        raise UserError(
            f"hyperfit does not use {' and '.join(unused)}: it overfits on purpose. Leave it out, "
            "or use `heldout fit`."
        )
    return chosen


def _dry_run_of(parts: Parts, recipe: Recipe, target: Target, folder: Path) -> DryRun:
    """Load the model, check it with rows and settings, and count; the model is let go again."""
    if parts.mode != "split" or not parts.test:
        raise UserError(
            "hyperfit needs held-out texts to continue: name files of them with "
            "--set data.validation=FILE --set data.test=FILE, or give more rows."
        )
    check_trackers(recipe.train.report_to)
    loaded = target.load(recipe)
    model, tokenizer = loaded.model, loaded.tokenizer
    limit = context_length(model)
    length = recipe.hyperfit.context_tokens + recipe.hyperfit.new_tokens
    if limit is not None and length > limit:
        raise UserError(
            f"hyperfit.context_tokens plus hyperfit.new_tokens must be at most {limit}, what this "
            f"model can read, got {length}."
        )
    sample = WindowSample(parts.train, tokenizer, recipe)
    _refuse_blocker(parts, sample, tokenizer, recipe)
    checks = check_windows(sample, tokenizer, limit)
    checks = [check for check in checks if check.name != "end of text"]
    checks += _check_data(sample, recipe)
    contexts_of(
        parts.validation, tokenizer, recipe, recipe.hyperfit.num_validation_contexts, "validation"
    )
    contexts = contexts_of(parts.test, tokenizer, recipe, recipe.hyperfit.num_contexts, "test")
    checks.append(_check_contexts(len(contexts), recipe))
    if tokenizer.chat_template:
        checks.append(
            PreflightCheck(
                "base model",
                "warning",
                "its tokenizer has a chat template, so it was probably tuned on instructions: "
                "hyperfitting is known from base models, and plain text is not what it expects",
            )
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    model = prepare(loaded, recipe)
    assert recipe.train.learning_rate is not None
    check_update_floor(model, recipe.train.learning_rate)
    checks += check_resources(model, sample, recipe, [], folder, vocabulary)
    schedule = Schedule.of(len(sample), recipe)
    cost = "one forward and one backward"
    return DryRun.of(parts, schedule, model, loaded.parameters, cost, checks)


def _refuse_blocker(parts: Parts, sample: WindowSample, tokenizer: Any, recipe: Recipe) -> None:
    """UserError where no window is as long as what the citation blocker would block."""
    rows = sample_rows(parts.train, MOST_ROWS, recipe.data.seed)
    asked = recipe.hyperfit.blocked_ngram
    length = token_size(tokenizer, rows).tokens(asked)
    longest = max(len(sample.ids_of(place)) for place in range(len(sample)))
    if longest < length:
        raise UserError(
            f"hyperfit.blocked_ngram={asked} are {length} tokens of this tokenizer, and no window "
            f"of the training text has more than {longest}: give longer texts, or lower it."
        )


def _check_data(sample: WindowSample, recipe: Recipe) -> list[PreflightCheck]:
    num, available = len(sample), sample.num_available
    length = recipe.data.max_length
    words = f"{num:,} of {available:,} windows of up to {length} tokens are trained on"
    if num > MANY_SAMPLES:
        return [
            PreflightCheck(
                "sample",
                "warning",
                f"{words}: hyperfitting is known from 16 to 2,000 and needs many epochs to "
                "near-zero loss; set hyperfit.num_samples",
            )
        ]
    if num < FEW_SAMPLES:
        few = f"{words}: under {FEW_SAMPLES} the effect is known to fall off; give more text"
        return [PreflightCheck("sample", "warning", few)]
    return [PreflightCheck("sample", "ok", words)]


def _check_contexts(num: int, recipe: Recipe) -> PreflightCheck:
    wanted = recipe.hyperfit.num_contexts
    if num < min(wanted, 30):
        return PreflightCheck("contexts", "warning", f"{num} test contexts are too few for a claim")
    return PreflightCheck("contexts", "ok", f"{num} test contexts")


def _run_stages(run: Run, target: Target, progress: Progress) -> HyperfitResult:
    with stages_of(run, with_memory=False) as (_, request):
        texts = load_parts(run).texts
        _stages(RunContext(run, target, run.recipe, texts, progress, request))
    result = conclude_hyperfit(run)
    shutil.rmtree(run.path("checkpoints"), ignore_errors=True)
    return result


def _stages(context: RunContext) -> None:
    """Whatever of the run is not there yet, in its order."""
    recipe = context.recipe

    def validation_contexts(tokenizer: Any) -> Contexts:
        num = recipe.hyperfit.num_validation_contexts
        return contexts_of(context.texts.validation, tokenizer, recipe, num, "validation")

    if not context.run.path("kept.json").exists():
        outcome = train_hyperfit(context, validation_contexts)
        context.check_interrupt(outcome.interrupted)
    context.check_interrupt()
    evaluate(context)
