"""What to set and to what, each with its interval and where it is from; or why nothing tells it."""

import math
from dataclasses import replace

from heldout.core.results.advice import AdvisedSetting, Basis, PredictedTraining
from heldout.jobs.planning.known_law import SLACK, KnownLaw
from heldout.jobs.planning.sentences import as_guess, in_interval
from heldout.scaling import published
from heldout.scaling.optimum import Limits

FAR_EPOCHS = 1000.0  # where the search for the turning point ends
MOST_MEMBERS = 8  # of an ensemble: the largest that was published


def settings_by_law(
    known: KnownLaw,
    limits: Limits,
    plan: PredictedTraining,
    best_size: PredictedTraining | None,
    *,
    epochs: float | None,
    is_pretrained: bool,
) -> tuple[AdvisedSetting, ...]:
    """All settings around ``plan``; ``epochs`` are those that were asked for."""
    return (
        _size(known, limits, best_size, epochs),
        *_length(known, limits, plan, epochs),
        _turning_point(known, plan, limits.U),
        *_tuned_rules(plan.N / limits.U, is_pretrained),
        _ensemble(plan, limits.flops, is_pretrained),
        _lora_rank(is_pretrained),
    )


def _unknown(name: str, unit: str, reason: str) -> AdvisedSetting:
    return AdvisedSetting(name, None, None, None, unit, "unknown", f"Not known: {reason}.")


def _size(
    known: KnownLaw, limits: Limits, best: PredictedTraining | None, epochs: float | None
) -> AdvisedSetting:
    name, unit = "parameters", "parameters"
    if best is None:
        reason = "without a budget a larger model may always be better. Give --flops"
        return _unknown(name, unit, reason)
    low, high = (None, None) if epochs else known.best_ranges(limits, None, best)["N"]
    sentence = f"{best.N:.3g} are best for {limits.flops:.3g} FLOPs{in_interval(low, high)}."
    sentence += as_guess(best)
    return AdvisedSetting(name, best.N, low, high, unit, known.used.basis, sentence)


def _length(
    known: KnownLaw, limits: Limits, plan: PredictedTraining, epochs: float | None
) -> list[AdvisedSetting]:
    bounds = known.best_ranges(limits, plan.N, plan)
    if epochs is not None:
        bounds = dict.fromkeys(bounds, (None, None))
    why = ""
    if epochs is None and plan.epochs > 0.999 * known.used.most_epochs:
        why = f" More are not advised: {known.used.why_most_epochs}."
    tokens = f"{plan.D:.3g} with {plan.N:.3g} parameters{in_interval(*bounds['D'])}."
    of_epochs = in_interval(*bounds["epochs"])
    rounds = f"{plan.epochs:.3g} of {plan.U:.3g} unique tokens{of_epochs}.{why}"
    basis = known.used.basis
    return [
        AdvisedSetting("tokens", plan.D, *bounds["D"], "tokens seen", basis, tokens),
        AdvisedSetting("epochs", plan.epochs, *bounds["epochs"], "epochs", basis, rounds),
    ]


def _turning_point(known: KnownLaw, plan: PredictedTraining, U: float) -> AdvisedSetting:
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
        return AdvisedSetting(name, None, low, None, unit, known.used.basis, sentence)
    beyond = ""
    if turn > known.used.most_epochs:
        times = turn / known.used.most_epochs
        beyond = f" A guess, {times:.3g} times outside the runs: {known.used.why_most_epochs}."
    sentence = (
        f"{turn:.3g} epochs: with {plan.N:.3g} parameters on {U:.3g} unique tokens the loss turns "
        f"up there{in_interval(low, high)}.{beyond}"
    )
    return AdvisedSetting(name, turn, low, high, unit, known.used.basis, sentence)


def _tuned_rules(load: float, is_pretrained: bool) -> list[AdvisedSetting]:
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
            made.append(AdvisedSetting(name, value, None, None, unit, basis, sentence))
    return made


def _ensemble(plan: PredictedTraining, budget: float, is_pretrained: bool) -> AdvisedSetting:
    """How many models the compute that is left over could train; what they bring is not known."""
    name, unit = "ensemble size", "models"
    if math.isinf(budget):
        reason = "without a budget: an ensemble costs one more training for each model"
        return _unknown(name, unit, reason)
    num = int(min(MOST_MEMBERS, budget / plan.flops * 1.0001))
    if num < 2:
        sentence = (
            f"One: the best training takes {plan.flops:.3g} of {budget:.3g} FLOPs, which leaves "
            "too few for a second one."
        )
        return AdvisedSetting(name, 1.0, None, None, unit, "arithmetic", sentence)
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
    return AdvisedSetting(name, float(num), None, None, unit, "arithmetic", sentence)


def _lora_rank(is_pretrained: bool) -> AdvisedSetting:
    reason = "LoRA adapts a pretrained model, and this is training from scratch"
    if is_pretrained:
        reason = (
            "no law tells a rank from model and data. Compare ranks on held-out text with "
            "`heldout fit --set model.lora_rank=...`"
        )
    return _unknown("LoRA rank", "rank", reason)
