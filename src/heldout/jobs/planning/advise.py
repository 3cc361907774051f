"""What to buy next: parameters, tokens, epochs, weight decay, an ensemble, or more data; and for a
pretrained model with its rows a recipe to fine-tune it by.

Own runs, where there are any, are fitted with the law that forecasts best; else published
constants stand in, marked as such. Nothing is advised that the law behind it cannot know: beyond
four epochs it must be one whose loss can rise with repetition, and never farther than its runs.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from heldout.core.progress import Progress
from heldout.core.results.advice import Advice, Fact, PredictedTraining, RecipeAdvice
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.jobs.planning.advised_settings import settings_by_law
from heldout.jobs.planning.counting import count
from heldout.jobs.planning.known_law import KnownLaw, own_law, published_law
from heldout.jobs.planning.question import Question
from heldout.jobs.planning.recipe_rules import recipe_advice
from heldout.jobs.planning.trade_offs import cheapest_serving, doublings
from heldout.report import advice as page
from heldout.scaling.isoloss import loss_grid
from heldout.scaling.optimum import Limits
from heldout.scaling.table import NATS, NON_EMBEDDING, TOTAL

NUM_RESAMPLES = 400
CLEAN = "clean"  # folder of the copy without duplicates
# What a clean copy, which is split and has columns of its own, is not read by.
OF_READING = ("data.columns", "data.group", "data.time", "data.encoding", "data.learn_chosen")


def advise(
    question: Question,
    *,
    num_resamples: int = NUM_RESAMPLES,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Advice:
    """Best size, training length and settings for a budget, as far as they can be known; for a
    pretrained model and its data the recipe to take.

    Intervals are over ``num_resamples`` resamples of own runs. With ``out``, ``advice.json`` and
    ``report.html`` are written there, and a measured learning curve can be resumed. Costs what
    fitting the laws to the runs takes, some seconds, and with ``measure`` several trainings.

    Raises UserError for what cannot be answered; nothing is written then.
    """
    progress = progress or Progress()
    question.check()
    folder = Path(out) if out is not None else None
    known, unit, counted_as, notes = _law_behind(question, num_resamples, progress)
    counted = count(question, folder, progress)
    N = counted.parameters
    if counted_as == NON_EMBEDDING and question.model.name:
        N = counted.non_embedding
    result = Advice(
        is_pretrained=question.model.is_pretrained,
        parameters=N,
        counted=counted_as,
        unique_tokens=counted.unique_tokens,
        flops=question.total_flops(),
        loss_unit=unit,
        law=None,
        plan=None,
        best_size=None,
        other=None,
        settings=(),
        doublings=(),
        serving=None,
        learning_curve=counted.learning_curve,
        notes=tuple(notes),
        fine_tuning=_fine_tuning(counted.facts, question),
    )
    picture = None
    if known is None:
        result = _without_law(result)
    else:
        with progress.stage("best training"):
            result, picture = _with_law(result, known, question)
    if folder is None:
        return result
    result = replace(result, report=str(folder / "report.html"))
    write_page_folder(
        folder,
        "advice.json",
        result.to_json(),
        lambda path: page.write_advice(result, picture, path),
    )
    return result


def _law_behind(
    question: Question, num_resamples: int, progress: Progress
) -> tuple[KnownLaw | None, str, str, list[str]]:
    """The law, the unit of its loss, how it counts parameters, and notes; None: none applies."""
    if question.runs is not None:
        known, table, notes = own_law(
            question.runs, law=question.law, num_resamples=num_resamples, progress=progress
        )
        return known, table.loss_unit, table.counted or "embeddings not said", notes
    if question.model.is_pretrained:
        return None, NATS, TOTAL, []
    return published_law(question.law.replace("-", "_")), NATS, TOTAL, []


def _with_law(result: Advice, known: KnownLaw, question: Question) -> tuple[Advice, page.Picture]:
    U, epochs, N = result.unique_tokens, question.epochs, result.parameters
    assert U is not None, "checked before"
    limits = Limits(U, result.flops or math.inf, known.used.most_epochs)
    plan = known.best(limits, N, epochs)
    best_size = None
    if result.flops is not None:
        best_size = plan if N is None else known.best(limits, None, epochs)
    other = None
    if known.draws is None and known.law.KNOWS_REPETITION and epochs in (None, 1):
        other = published_law("chinchilla").best(replace(limits, most_epochs=1.0), N, epochs)
    serving = None
    if question.serve_tokens is not None:
        serving = cheapest_serving(known, limits, plan, question.serve_tokens)
    settings = settings_by_law(
        known, limits, plan, best_size, epochs=epochs, is_pretrained=result.is_pretrained
    )
    advice = replace(
        result,
        law=known.used,
        plan=plan,
        best_size=best_size,
        other=other,
        settings=settings,
        doublings=tuple(doublings(known, plan)),
        serving=serving,
        notes=(*result.notes, *_caveats(known, plan, result.is_pretrained)),
    )
    return advice, _picture(known, plan, limits)


def _caveats(known: KnownLaw, plan: PredictedTraining, is_pretrained: bool) -> list[str]:
    """What the law and the plan take for granted."""
    notes = []
    if known.draws is None:
        notes.append(
            f"The law is published, not yours: {known.used.source}. It holds for training from "
            "scratch on web text with its authors' tokenizer and recipe, and has no interval. Ten "
            "or more short runs of your own, of several sizes and lengths, given with --runs, "
            "would make it sure."
        )
    elif is_pretrained:
        notes.append(
            "The runs are taken to be fine-tunings of this kind of model: runs from scratch say "
            "nothing about fine-tuning."
        )
    if plan.guesses:
        words = "; ".join(each.words for each in plan.guesses)
        notes.append(f"The plan is a guess: it lies outside all runs behind the law. {words}.")
    return notes


def _fine_tuning(facts: Sequence[Fact], question: Question) -> RecipeAdvice | None:
    """The recipe that the facts ask for, and the commands that train by it; None without facts."""
    if not facts:
        return None
    found = recipe_advice(facts, question.goal or "loss")
    data, commands = question.data.path, []
    given = list(question.settings)
    if found.cleans:
        commands.append(["check", data, "--write-clean", CLEAN, *_as_options(given)])
        data, given = CLEAN, [each for each in given if not each.startswith(OF_READING)]
    fit = ["fit", "--model", question.model.name, "--data", data, "--recipe", found.recipe]
    if (minutes := question.budget.time_in_minutes) is not None:
        fit += ["--minutes", f"{minutes:g}"]
    commands.append([*fit, *_as_options([*given, *found.settings])])
    return replace(found, commands=tuple(shlex.join(["heldout", *words]) for words in commands))


def _as_options(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _without_law(result: Advice) -> Advice:
    """What is left to say of size and length where no law applies."""
    note = (
        "No law tells the loss beforehand: published ones are of training from scratch. Give the "
        "results of earlier fine-tunings with --runs, and --data for a recipe."
    )
    return result if result.fine_tuning else replace(result, notes=(note,))


def _picture(
    known: KnownLaw, plan: PredictedTraining, limits: Limits, num: int = 41
) -> page.Picture:
    """Loss over sizes and tokens around the plan and the runs, with the runs' range."""
    (low_N, high_N), (low_D, high_D) = known.within["N"], known.within["D"]
    N = np.geomspace(min(low_N, plan.N / 3), max(high_N, plan.N * 3), num)
    D = np.geomspace(min(low_D, plan.D / 3), max(high_D, plan.D * 3), num)
    longest = limits.U * known.used.most_epochs
    loss = loss_grid(known.law, known.values, N, D, limits.U)
    cells = [
        [float(value) if D[row] <= longest * 1.0001 else None for value in loss[row]]
        for row in range(num)
    ]
    return page.Picture(
        N.tolist(), D.tolist(), cells, (low_N, high_N), (low_D, high_D), limits.U, longest
    )
