"""Is more data worth it? The same recipe trained on nested parts of the data, and a curve.

Every size is measured on the same held-out rows at its own best epoch. So that choosing the epoch
does not flatter a run, each half of the held-out groups is measured at the epoch that the other
half chose. Intervals resample the held-out groups and the spread over seeds, each of which draws
other rows and starts the training anew.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from heldout.core.discovery import build
from heldout.core.errors import UserError
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.lock import alone_in, scratch_folder
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, same_settings
from heldout.core.results.learning_curve import LearningCurve
from heldout.core.run import Run
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.curve_points import NUM_RESAMPLES, fit_points
from heldout.jobs.kit.curve_training import CurvePart, trained_parts
from heldout.jobs.kit.find_rate import find_learning_rate
from heldout.jobs.kit.nested_parts import group_order, nested_part
from heldout.jobs.kit.parts import Parts, Texts, write_parts
from heldout.jobs.kit.places import Places, threads_of
from heldout.jobs.kit.target import Target
from heldout.jobs.kit.training_setup import planned_places
from heldout.lm.chat_template import with_template_arguments
from heldout.lm.load import load_tokenizer
from heldout.lm.quiet import quiet_libraries
from heldout.lm.tokenize import tokenize_rows
from heldout.training.keeper import evaluations_of

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = (0, 1, 2)
LEAST_GROUPS = 4  # in the smallest part


def learning_curve(
    model: str | Target,
    parts: Parts,
    recipe: Recipe,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = SEEDS,
    folder: str | Path | None = None,
    num_resamples: int = NUM_RESAMPLES,
    progress: Progress | None = None,
) -> LearningCurve:
    """Held-out loss of ``recipe`` over nested parts of ``parts.train``, and 2 and 4 times as much.

    model: what ``heldout fit --model`` takes, or a Target. parts: as ``read_parts`` gives them;
    the validation part measures all sizes, the test part is not touched. folder: keeps finished
    trainings, and a second call with the same arguments goes on from there.
    Costs ``len(seeds)`` times about twice a training on all rows. The learning rate is searched
    once, on all rows, unless the recipe names one. Raises UserError for what cannot work,
    Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    target = model if isinstance(model, Target) else Target.of(model, "")
    fractions, seeds = _checked(fractions, seeds, parts, recipe)
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(scratch_folder("heldout-curve-")) / "curve"
        stack.enter_context(quiet_libraries())
        request = stack.enter_context(stop_on_interrupt())
        stack.enter_context(alone_in(Path(folder)))
        run = _open(Path(folder), target, parts, recipe)

        texts = Texts(parts.train, parts.validation, parts.train[:2])
        context = RunContext(run, target, recipe, texts, progress, request)
        places = Places.kept_in(
            run.folder, lambda: planned_places(context, len(fractions) * len(seeds))
        )
        context = replace(context, places=places)
        with threads_of(places):
            rate = find_learning_rate(context)
            parts_of_rows = list(_parts_of(context, fractions, seeds))
            found = trained_parts(context, parts_of_rows, rate)
        base = evaluations_of(run, parts_of_rows[0].history_name)[0].validation
    return fit_points(
        [point for point, _ in found],
        [losses for _, losses in found],
        base.nats_per_token,
        min_effect=recipe.eval.min_effect,
        num_resamples=num_resamples,
    )


def _parts_of(
    context: RunContext, fractions: Sequence[float], seeds: Sequence[int]
) -> Iterator[CurvePart]:
    """Every fraction in the order of every seed."""
    rows, recipe = context.texts.train, context.recipe
    tokenizer = load_tokenizer(
        context.target.model, trust_remote_code=recipe.model.trust_remote_code
    )
    with_template_arguments(tokenizer, recipe.data.template_arguments)
    tokenized = tokenize_rows(rows, tokenizer, recipe.data.max_length)
    tokens = [each.num_tokens for _, each in tokenized]
    for seed in seeds:
        order = group_order(rows, seed)
        for fraction in fractions:
            chosen = nested_part(rows, tokens, order, fraction)
            yield CurvePart(fraction, seed, chosen, sum(tokens[place] for place in chosen))


def _checked(
    fractions: Sequence[float], seeds: Sequence[int], parts: Parts, recipe: Recipe
) -> tuple[list[float], list[int]]:
    fractions, seeds = sorted(set(map(float, fractions))), list(dict.fromkeys(seeds))
    if not all(0 < fraction <= 1 for fraction in fractions) or len(fractions) < 3:
        raise UserError(
            "A learning curve needs three or more fractions above 0 and at most 1, got "
            f"{', '.join(f'{fraction:g}' for fraction in fractions) or 'none'}."
        )
    if not seeds or len(fractions) * len(seeds) < 4:
        raise UserError(
            f"A learning curve needs 4 trainings or more, got {len(fractions)} fractions with "
            f"{len(seeds)} seeds: give more of either."
        )
    if parts.mode != "split":
        raise UserError(
            f"A learning curve needs a held-out part, and {parts.groups['train']} groups are too "
            "few for one. Name a file with data.validation, or set data.test_share=0 if no test "
            "part is wanted."
        )
    num_groups = len({row.group for row in parts.train})
    if fractions[0] * num_groups < LEAST_GROUPS:
        raise UserError(
            f"The smallest part of a learning curve, {fractions[0]:g} of {num_groups} training "
            f"groups, must have {LEAST_GROUPS} groups: leave that fraction out, or give more rows."
        )
    for name, parameters in recipe.regularizers.items():
        if build("regularizer", name, parameters).NEEDS_VALIDATION:
            raise UserError(
                f"regularizers.{name} goes back to kept checkpoints, which a learning curve does "
                f"not keep: take it out with --set regularizers.{name}=false."
            )
    if recipe.search.ablate != "off":
        raise UserError(
            f"A learning curve trains one recipe on every part, got search.ablate="
            f"{recipe.search.ablate}: set search.ablate=off."
        )
    if recipe.search.ranges:
        raise UserError(
            "A learning curve trains one recipe on every part, and search.ranges compares "
            "settings: leave it out with --set search.ranges={}."
        )
    return fractions, seeds


def _open(folder: Path, target: Target, parts: Parts, recipe: Recipe) -> Run:
    """The folder as a run, new or from an earlier call with the same arguments."""
    made_with = {
        **asdict(target),
        "recipe": recipe.to_toml(),
        "rows": hashlib.sha256(
            json.dumps([row.to_json() for row in [*parts.train, *parts.validation]]).encode()
        ).hexdigest(),
    }
    if not (folder / "status.json").is_file() or Run.is_cut_short(folder):
        run = Run.create(folder, recipe)
        write_parts(run, parts, recipe)
        run.write_json("curve.json", {"made_with": made_with, "points": []})
        return run
    run = Run.open(folder)
    known = run.read_json("curve.json") if run.path("curve.json").exists() else {}
    if not same_settings(known.get("made_with", {}), made_with):
        raise UserError(
            f"{folder} holds something else than this learning curve (another model, recipe or "
            "data): give another folder."
        )
    return run
