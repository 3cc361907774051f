"""What to buy next: parameters, tokens, epochs, weight decay, an ensemble, or more data.

Own runs, where there are any, are fitted with the law that forecasts best; else published
constants stand in, marked as such. Nothing is advised that the law behind it cannot know: beyond
four epochs it must be one whose loss can rise with repetition, and never farther than its runs.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from heldout.core.errors import UserError
from heldout.core.files import write_text
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.results.advice import Advice, Basis, Doubled, Doubling, Serving, Setting, Training
from heldout.core.results.learning_curve import LearningCurve
from heldout.jobs.planning.known_law import SLACK, KnownLaw, own_law, published_law
from heldout.report import advice as page
from heldout.scaling import published
from heldout.scaling.optimum import Limits, trained
from heldout.scaling.serving import FLOPS_PER_SERVED_TOKEN, Served, cheapest
from heldout.scaling.table import NATS, NON_EMBEDDING, TOTAL

NUM_RESAMPLES = 400
FAR_EPOCHS = 1000.0  # where the search for the turning point ends
MOST_MEMBERS = 8  # of an ensemble: the largest that was published


@dataclass(frozen=True)
class _Question:
    """What is given, counted; None where it is open."""

    is_pretrained: bool
    total: float | None
    non_embedding: float | None
    unique_tokens: float | None
    flops: float | None
    epochs: float | None
    serve_tokens: float | None


def advise(
    *,
    model: str = "",
    from_scratch: str = "",
    parameters: float | None = None,
    data: str = "",
    unique_tokens: float | None = None,
    flops: float | None = None,
    hours: float | None = None,
    flops_per_second: float | None = None,
    epochs: float | None = None,
    serve_tokens: float | None = None,
    runs: str | Path | None = None,
    law: str = "",
    columns: Sequence[str] = (),
    where: Sequence[str] = (),
    counted: str = "",
    loss_unit: str = "",
    uniform_loss: float | None = None,
    measure: bool = False,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    num_resamples: int = NUM_RESAMPLES,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Advice:
    """Best size, training length and settings for a budget, as far as they can be known.

    Size: ``parameters``, or a ``model`` to fine-tune, or a ``from_scratch`` configuration (with
    ``model`` for the tokenizer); none: any size that the compute allows. Tokens: ``unique_tokens``
    or ``data``, of whose training part they are counted. Compute: ``flops``, or ``hours`` times
    ``flops_per_second``; may be left out where the size is given. ``runs`` is a table of own runs
    as for ``laws``, ``counted`` how their N was. ``epochs`` asks about that many. ``measure``
    trains on parts of ``data`` to say whether more of it is worth it; with ``out`` it can be
    resumed.

    Raises UserError for what cannot be answered; nothing is written then.
    """
    progress = progress or Progress()
    budget = _budget(flops, hours, flops_per_second)
    _check_numbers(
        {
            "--parameters": parameters,
            "--unique-tokens": unique_tokens,
            "--epochs": epochs,
            "--serve-tokens": serve_tokens,
        }
    )
    _check_sources(model, from_scratch, parameters, data, unique_tokens, measure)
    if budget is None and parameters is None and not model:
        raise UserError(
            "Without a limit on compute no size is best: give --flops, or --hours with "
            "--flops-per-second, or --parameters."
        )
    question = _Question(
        bool(model) and not from_scratch,
        parameters,
        None,
        unique_tokens,
        budget,
        epochs,
        serve_tokens,
    )
    folder = Path(out) if out is not None else None
    known, notes, unit, counted_as = None, [], NATS, TOTAL
    if runs is not None:
        known, table, said = own_law(
            runs,
            law=law,
            columns=columns,
            where=where,
            counted=counted,
            loss_unit=loss_unit,
            uniform_loss=uniform_loss,
            num_resamples=num_resamples,
            progress=progress,
        )
        notes += said
        unit, counted_as = table.loss_unit, table.counted or "embeddings not said"
    elif not question.is_pretrained:
        known = published_law(law.replace("-", "_"))
    curve = None
    if model:
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
        question, curve = _of_model(
            question, model, from_scratch, data, chosen, measure, folder, progress
        )
    N = question.non_embedding if counted_as == NON_EMBEDDING and model else question.total
    result = Advice(
        question.is_pretrained, N, counted_as, question.unique_tokens, budget, unit,
        None, None, None, None, (), (), None, curve, tuple(notes),
    )  # fmt: skip
    picture = None
    if known is None:
        result = _without_law(result)
    else:
        with progress.stage("best training"):
            result, picture = _with_law(result, known, question, N)
    if folder is None:
        return result
    folder.mkdir(parents=True, exist_ok=True)
    result = replace(result, report=str(folder / "report.html"))
    page.write_advice(result, picture, folder / "report.html")
    text = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(folder / "advice.json", text)
    return result


def _budget(flops, hours, flops_per_second) -> float | None:
    if hours is not None and flops is not None:
        raise UserError("Give --flops or --hours, not both.")
    if (hours is None) != (flops_per_second is None):
        raise UserError(
            "--hours and --flops-per-second go together: the sustained rate of your hardware makes "
            "a budget of the hours."
        )
    budget = flops if hours is None else hours * 3600 * flops_per_second
    if budget is not None and not (0 < budget < math.inf):
        raise UserError(f"The compute must be a positive number of FLOPs, got {budget:g}.")
    return budget


def _check_numbers(given: dict[str, float | None]) -> None:
    for option, value in given.items():
        if value is not None and not (0 < value < math.inf):
            raise UserError(f"{option} must be a positive number, got {value:g}.")
    epochs = given["--epochs"]
    if epochs is not None and epochs < 1:
        raise UserError(f"--epochs must be 1 or more, got {epochs:g}: less is a part of the data.")


def _check_sources(model, from_scratch, parameters, data, unique_tokens, measure) -> None:
    if parameters is not None and model:
        raise UserError("Give --parameters or --model, not both.")
    if data and not model:
        raise UserError(
            "--data is counted in tokens: name the tokenizer with --model, or give --unique-tokens."
        )
    if data and unique_tokens is not None:
        raise UserError("Give --data or --unique-tokens, not both.")
    if from_scratch and not model:
        raise UserError("--from-scratch needs --model for the tokenizer.")
    if measure and not data:
        raise UserError("--measure trains on parts of your data: give --model and --data.")
    if not data and unique_tokens is None:
        raise UserError("How much data is there? Give --unique-tokens, or --data with --model.")


def _of_model(
    question, model, from_scratch, data, recipe, measure, folder, progress
) -> tuple[_Question, LearningCurve | None]:
    """Parameters of the model, tokens of the data, and the learning curve where it is wanted."""
    from heldout.jobs.kit.learning_curve import learning_curve
    from heldout.jobs.kit.parts import read_parts
    from heldout.jobs.kit.target import (
        Target,  # with torch, which a question in numbers does not need
    )
    from heldout.lm.load import load_tokenizer
    from heldout.lm.quiet import quiet_libraries
    from heldout.lm.tokenize import tokenize_row

    target = Target.of(model, from_scratch)
    with quiet_libraries(), progress.stage("counting parameters and tokens"):
        loaded = target.load(recipe)
        ends = (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings())
        shared = {id(each.weight): each.weight.numel() for each in ends if each is not None}
        question = replace(
            question,
            total=float(loaded.parameters),
            non_embedding=float(loaded.parameters - sum(shared.values())),
        )
        del loaded, ends
        if not data:
            return question, None
        parts = read_parts(data, recipe)
        tokenizer = load_tokenizer(model, trust_remote_code=recipe.model.trust_remote_code)
        tokens = (tokenize_row(row, tokenizer, recipe.data.max_length) for row in parts.train)
        question = replace(question, unique_tokens=float(sum(each.num_tokens for each in tokens)))
    if not measure:
        return question, None
    kept = folder / "learning_curve" if folder else None
    return question, learning_curve(target, parts, recipe, folder=kept, progress=progress)


def _with_law(
    result: Advice, known: KnownLaw, question: _Question, N: float | None
) -> tuple[Advice, page.Picture]:
    U, budget, epochs = question.unique_tokens, question.flops, question.epochs
    assert U is not None, "checked before"
    limits = Limits(U, budget or math.inf, known.used.most_epochs)
    plan = known.best(limits, N, epochs)
    best_size = None
    if budget is not None:
        best_size = plan if N is None else known.best(limits, None, epochs)
    notes = list(result.notes)
    other = None
    if known.draws is None:
        if known.law.KNOWS_REPETITION and epochs in (None, 1):
            other = published_law("chinchilla").best(replace(limits, most_epochs=1.0), N, epochs)
        notes.append(
            f"The law is published, not yours: {known.used.source}. It holds for training from "
            "scratch on web text with its authors' tokenizer and recipe, and has no interval. Ten "
            "or more short runs of your own, of several sizes and lengths, given with --runs, "
            "would make it sure."
        )
    elif result.is_pretrained:
        notes.append(
            "The runs are taken to be fine-tunings of this kind of model: runs from scratch say "
            "nothing about fine-tuning."
        )
    if plan.guesses:
        words = "; ".join(each.words for each in plan.guesses)
        notes.append(f"The plan is a guess: it lies outside all runs behind the law. {words}.")
    serving = None
    if question.serve_tokens is not None:
        serving = _serving(known, limits, plan, question.serve_tokens)
    settings = (
        _size(known, limits, best_size, epochs),
        *_length(known, limits, plan, epochs),
        _turning_point(known, plan, U),
        *_tuned_rules(plan.N / U, result.is_pretrained),
        _ensemble(plan, budget, result.is_pretrained),
        _lora_rank(result.is_pretrained),
    )
    advice = replace(
        result,
        law=known.used,
        plan=plan,
        best_size=best_size,
        other=other,
        settings=settings,
        doublings=tuple(_doublings(known, plan)),
        serving=serving,
        notes=tuple(notes),
    )
    return advice, _picture(known, plan, limits)


def _without_law(result: Advice) -> Advice:
    """What is left to say where no law applies."""
    reason = (
        "published laws are of training from scratch and say nothing about fine-tuning a "
        "pretrained model"
    )
    way = "Give the results of earlier fine-tunings with --runs, or measure with --measure"
    length = "`heldout fit` finds the epoch to stop at on held-out text"
    settings = (
        _unknown("parameters", "parameters", f"{reason}. {way}"),
        _unknown("tokens", "tokens seen", f"{reason}. {length}"),
        _unknown("epochs", "epochs", f"{reason}. {length}"),
        _unknown("overfits beyond", "epochs", f"{reason}. {way}"),
        *_tuned_rules(math.nan, is_pretrained=True),
        _unknown("ensemble size", "models", f"{reason}. {way}"),
        _lora_rank(is_pretrained=True),
    )
    return replace(result, settings=settings, notes=(f"No law applies: {reason}. {way}.",))


def _unknown(name: str, unit: str, reason: str) -> Setting:
    return Setting(name, None, None, None, unit, "unknown", f"Not known: {reason}.")


def _to(low: float | None, high: float | None, form: str = ".3g") -> str:
    return "" if low is None or high is None else f" (95 %: {low:{form}} to {high:{form}})"


def _guess(training: Training) -> str:
    if not training.guesses:
        return ""
    return f" A guess, outside the runs: {'; '.join(each.words for each in training.guesses)}."


def _size(known: KnownLaw, limits: Limits, best: Training | None, epochs) -> Setting:
    name, unit = "parameters", "parameters"
    if best is None:
        reason = "without a budget a larger model may always be better. Give --flops"
        return _unknown(name, unit, reason)
    low, high = (None, None) if epochs else known.best_ranges(limits, None, best)["N"]
    sentence = f"{best.N:.3g} are best for {limits.flops:.3g} FLOPs{_to(low, high)}."
    return Setting(name, best.N, low, high, unit, known.used.basis, sentence + _guess(best))


def _length(known: KnownLaw, limits: Limits, plan: Training, epochs) -> list[Setting]:
    bounds = known.best_ranges(limits, plan.N, plan)
    if epochs is not None:
        bounds = dict.fromkeys(bounds, (None, None))
    why = ""
    if epochs is None and plan.epochs > 0.999 * known.used.most_epochs:
        why = f" More are not advised: {known.used.why_most_epochs}."
    tokens = f"{plan.D:.3g} with {plan.N:.3g} parameters{_to(*bounds['D'])}."
    rounds = f"{plan.epochs:.3g} of {plan.U:.3g} unique tokens{_to(*bounds['epochs'])}.{why}"
    basis = known.used.basis
    return [
        Setting("tokens", plan.D, *bounds["D"], "tokens seen", basis, tokens),
        Setting("epochs", plan.epochs, *bounds["epochs"], "epochs", basis, rounds),
    ]


def _turning_point(known: KnownLaw, plan: Training, U: float) -> Setting:
    """The epoch at which the loss of the plan's size would turn up, were compute no limit."""
    name, unit = "overfits beyond", "epochs"
    if not known.law.RISES_WITH_EPOCHS:
        return _unknown(
            name,
            unit,
            f"the loss of the law {known.law.name} cannot rise as tokens are repeated. Runs of "
            "many epochs with a law that can (lovelace, hybrid) would tell",
        )
    far = Limits(U, math.inf, FAR_EPOCHS)
    lowest = replace(known, used=replace(known.used, most_epochs=FAR_EPOCHS)).best(
        far, plan.N, None
    )
    turn = lowest.epochs
    low, high = known.best_ranges(far, plan.N, lowest)["epochs"]
    if turn > 0.99 * FAR_EPOCHS:
        sentence = f"The loss does not turn up within {FAR_EPOCHS:g} epochs, as far as runs tell."
        return Setting(name, None, low, None, unit, known.used.basis, sentence)
    beyond = ""
    if turn > known.used.most_epochs:
        times = turn / known.used.most_epochs
        beyond = f" A guess, {times:.3g} times outside the runs: {known.used.why_most_epochs}."
    sentence = (
        f"{turn:.3g} epochs: with {plan.N:.3g} parameters on {U:.3g} unique tokens the loss turns "
        f"up there{_to(low, high)}.{beyond}"
    )
    return Setting(name, turn, low, high, unit, known.used.basis, sentence)


def _tuned_rules(load: float, is_pretrained: bool) -> list[Setting]:
    """Weight decay, and epochs to try, by the rule of tuned optima; ``load`` is N / U."""
    made = []
    for name, unit, rule in (
        ("weight decay", "per unit of learning rate", published.WEIGHT_DECAY),
        ("epochs to try", "epochs", published.EPOCHS),
    ):
        if is_pretrained:
            reason = "the published rule is of training from scratch, not of fine-tuning. Search it"
            made.append(_unknown(name, unit, reason))
        elif not rule.low / SLACK <= load <= rule.high * SLACK:
            factor = max(load / rule.high, rule.low / load)
            reason = (
                f"{load:.3g} parameters per unique token are {factor:.3g} times outside the tuned "
                f"optima ({rule.low:g} to {rule.high:g}). Search it, as the recipe "
                "pretrain_little_data says"
            )
            made.append(_unknown(name, unit, reason))
        else:
            value = rule(load)
            sentence = (
                f"{value:.2g}, published, not yours: {rule.factor:g} (N/U)^{rule.exponent:g}, "
                f"{rule.citation}, tuned on a grid of factors of 2 with strong weight decay. A "
                "search until every neighbor is worse would make it sure."
            )
            basis: Basis = "published, not yours"
            made.append(Setting(name, value, None, None, unit, basis, sentence))
    return made


def _ensemble(plan: Training, budget: float | None, is_pretrained: bool) -> Setting:
    """How many models the compute that is left over could train; what they bring is not known."""
    name, unit = "ensemble size", "models"
    if budget is None:
        reason = "without a budget: an ensemble costs one more training for each model"
        return _unknown(name, unit, reason)
    num = int(min(MOST_MEMBERS, budget / plan.flops * 1.0001))
    if num < 2:
        sentence = (
            f"One: the best training takes {plan.flops:.3g} of {budget:.3g} FLOPs, which leaves "
            "too few for a second one."
        )
        return Setting(name, 1.0, None, None, unit, "arithmetic", sentence)
    brings = (
        "Nothing is known of what it brings in fine-tuning."
        if is_pretrained
        else "What it brings here is not known. Published, not yours: at 0.2B unique tokens tuned "
        f"single models were worth {published.REGULARIZED_EFFICIENCY} times the data and tuned "
        f"ensembles {published.ENSEMBLE_EFFICIENCY} times; one distilled model kept "
        f"{100 * published.DISTILLED_SHARE:.0f} % of it ({published.ENSEMBLE_CITATION})."
    )
    sentence = (
        f"{num}: the best single training takes {plan.flops:.3g} of {budget:.3g} FLOPs, and the "
        f"rest could train more models, whose probabilities are averaged. {brings}"
    )
    return Setting(name, float(num), None, None, unit, "arithmetic", sentence)


def _lora_rank(is_pretrained: bool) -> Setting:
    reason = "LoRA adapts a pretrained model, and this is training from scratch"
    if is_pretrained:
        reason = (
            "no law tells a rank from model and data. Compare ranks on held-out text with "
            "`heldout fit --set model.lora_rank=...`"
        )
    return _unknown("LoRA rank", "rank", reason)


def _doublings(known: KnownLaw, plan: Training) -> list[Doubling]:
    """Twice the unique tokens, the parameters, the epochs: each doubles the compute."""
    made = []
    trainings: tuple[tuple[Doubled, float, float, float], ...] = (
        ("data", plan.N, 2 * plan.D, 2 * plan.U),
        ("parameters", 2 * plan.N, plan.D, plan.U),
        ("epochs", plan.N, 2 * plan.D, plan.U),
    )
    longest = 1.001 * known.used.most_epochs
    for what, N, D, U in trainings:
        if longest < D / U:
            reason = f"Not known: {D / U:.3g} epochs, and {known.used.why_most_epochs}."
            made.append(Doubling(what, None, None, None, None, reason))
            continue
        new = known.training(N, D, U)
        change, low, high = known.change(plan, new)
        rises = " It would overfit." if what == "epochs" and change > 0 else ""
        sentence = (
            f"Twice the {what}, at twice the compute: {change:+.4f}{_to(low, high, '+.4f')}."
            f"{rises}{_guess(new)}"
        )
        made.append(Doubling(what, new, change, low, high, sentence))
    return made


def _serving(known: KnownLaw, limits: Limits, plan: Training, tokens: float) -> Serving:
    # A hair above, so that the plan's own size reaches it in spite of rounding.
    found = cheapest(known.law, known.values, limits, plan.loss * (1 + 1e-9), tokens)
    own = Served(plan.N, plan.D, plan.flops, FLOPS_PER_SERVED_TOKEN * plan.N * tokens)
    if found is None or found.flops > own.flops:  # the plan is at the bottom of the law's valley
        found = own
    saved = 1 - found.flops / own.flops
    training = known.training(found.N, found.D, limits.U)
    return Serving(
        tokens,
        training,
        found.training_flops,
        found.serving_flops,
        saved,
        f"To serve {tokens:.3g} tokens at the same loss, {found.N:.3g} parameters trained on "
        f"{found.D:.3g} tokens ({training.epochs:.3g} epochs) cost {found.flops:.3g} FLOPs in all, "
        f"{100 * saved:.0f} % less than the plan.{_guess(training)}",
    )


def _picture(known: KnownLaw, plan: Training, limits: Limits, num: int = 41) -> page.Picture:
    """Loss over sizes and tokens around the plan and the runs, with the runs' range."""
    (low_N, high_N), (low_D, high_D) = known.within["N"], known.within["D"]
    N = np.geomspace(min(low_N, plan.N / 3), max(high_N, plan.N * 3), num)
    D = np.geomspace(min(low_D, plan.D / 3), max(high_D, plan.D * 3), num)
    longest = limits.U * known.used.most_epochs
    runs = trained(np.tile(N, num), np.repeat(D, num), limits.U)
    loss = known.law.loss(runs, known.values).reshape(num, num)
    cells = [
        [float(value) if D[row] <= longest * 1.0001 else None for value in loss[row]]
        for row in range(num)
    ]
    return page.Picture(
        N.tolist(), D.tolist(), cells, (low_N, high_N), (low_D, high_D), limits.U, longest
    )
