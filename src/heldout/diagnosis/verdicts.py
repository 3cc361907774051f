"""From measurements to seven verdicts and a headline; ``primary`` has the contrast of each."""

from dataclasses import replace

from heldout.core.facts import Facts
from heldout.core.holm import holm
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.stats import LEAST_HELD_OUT
from heldout.core.verdict import VERDICTS, Verdict, Verdicts
from heldout.diagnosis.features import leak_surely, rise, rise_surely
from heldout.diagnosis.harms import SIGNIFICANCE, judged_harm
from heldout.diagnosis.primary import Primary, deciding, why_unknown

LEAK_THAT_MATTERS = 0.01  # share of the held-out rows: one in a hundred moves a mean visibly
MEMORIZED_WANTED = 0.5  # with the goal to recite: share of the training rows


def verdicts_of(
    measurements: list[Measurement | NotMeasured],
    *,
    min_effect: float,
    peak: str = "",
    facts: Facts | None = None,
) -> Verdicts:
    """All seven verdicts. Missing evidence is ``unknown``, never a pass.

    ``min_effect`` is the smallest difference in nats/token that matters; ``peak`` says where the
    best checkpoint lies, in words, for the headline. ``facts`` bring the goal, leaks that were
    looked for in the data, and how the loss went.
    """
    facts = facts or Facts()
    by_name = {m.name: m for m in measurements if isinstance(m, Measurement)}
    chosen = deciding(by_name)
    contrasts = {
        name: by_name[primary.measurement].contrasts[primary.control]
        for name, primary in chosen.items()
    }
    adjusted = holm({name: c.p_value for name, c in contrasts.items() if c.p_value is not None})
    verdicts = {name: Verdict("unknown", why_unknown(name, measurements)) for name in VERDICTS}
    if (by_folds := _fit_by_folds(by_name)) is not None:
        verdicts["fit"] = by_folds
    for name, primary in chosen.items():
        p_value = adjusted.get(name, 0.0)
        if primary.matters is None:
            measured, effect = by_name[primary.measurement], min_effect if name == "fit" else 0.0
            verdicts[name] = _decide(primary, measured, contrasts[name], p_value, effect)
        else:
            verdicts[name] = judged_harm(primary, by_name, p_value)
    verdicts["fit"] = _past_its_best(verdicts["fit"], facts, min_effect)
    verdicts["leakage"] = _leakage(facts, verdicts["leakage"])
    verdicts |= _as_wanted(verdicts, by_name, facts)
    headline = _headline(by_name, verdicts["fit"], peak)
    return Verdicts(headline, {name: verdicts[name] for name in VERDICTS})


def _decide(
    primary: Primary, measured: Measurement, contrast: Contrast, p_value: float, min_effect: float
) -> Verdict:
    gain = primary.sign * contrast.difference
    low, high = sorted(
        (primary.sign * contrast.interval.low, primary.sign * contrast.interval.high)
    )
    figure = f"{_number(gain)} {measured.unit} {_ends(low, high)}"
    names = (measured.name,)
    if measured.num_units < LEAST_HELD_OUT and gain > 0:
        return Verdict(
            "yellow",
            f"Better than the base model by {figure}, but {measured.num_units} held-out groups are "
            "too few for a claim.",
            names,
        )
    if p_value < SIGNIFICANCE and low > 0 and gain >= min_effect:
        return Verdict("green", f"Better than the base model by {figure}.", names)
    if p_value < SIGNIFICANCE and high < 0 and -gain >= min_effect:
        worse = f"{_number(-gain)} {measured.unit} {_ends(-high, -low)}"
        return Verdict("red", f"Worse than the base model by {worse}.", names)
    if -min_effect < low and high < min_effect:
        return Verdict(
            "yellow", f"No difference to the base model that matters: a gain of {figure}.", names
        )
    return Verdict(
        "yellow", f"No significant difference from the base model: a gain of {figure}.", names
    )


def _past_its_best(fit: Verdict, facts: Facts, min_effect: float) -> Verdict:
    """A model that was better at an earlier checkpoint is no green fit."""
    risen, surely = rise({}, facts), rise_surely({}, facts)
    if fit.color != "green" or risen is None or surely is None or surely < max(min_effect, 0.01):
        return fit
    words = f" It was better before: its loss has risen by {_number(risen)} since its lowest."
    return replace(fit, color="yellow", sentence=fit.sentence + words)


def _leakage(facts: Facts, unknown: Verdict) -> Verdict:
    share = facts.leak_share
    if share is None:
        return unknown
    if share == 0:
        return Verdict("green", "No held-out row was found in the training data.")
    surely = leak_surely({}, facts)
    if surely is not None and surely >= LEAK_THAT_MATTERS:
        sentence = (
            f"{share:.1%} of the held-out rows lie in the training data too: the held-out figures "
            "flatter the model."
        )
        return Verdict("red", sentence)
    sentence = (
        f"{share:.1%} of the held-out rows lie in the training data too, so few that the held-out "
        "figures hardly move."
    )
    return Verdict("yellow", sentence)


def _as_wanted(
    verdicts: dict[str, Verdict], by_name: dict[str, Measurement], facts: Facts
) -> dict[str, Verdict]:
    """What the user's goal changes: a rising loss, or reciting, may be what was wanted."""
    changed: dict[str, Verdict] = {}
    fit = verdicts["fit"]
    if facts.goal != "generalize" and fit.color == "red":
        why = {
            "recite": "that is what learning by heart costs",
            "style": "for a style, judge by the outputs: the loss can rise while they get better",
        }[facts.goal]
        changed["fit"] = replace(fit, color="yellow", sentence=f"{fit.sentence[:-1]}; {why}.")
    memorized = by_name.get("recital_best")
    if facts.goal == "recite" and memorized is not None:
        low, high = memorized.value, memorized.value
        if memorized.interval is not None:
            low, high = memorized.interval.low, memorized.interval.high
        words = f"Recites {memorized.value:.0%} {_ends(low, high, '.0%')} of the training rows"
        if low >= MEMORIZED_WANTED:
            wanted = Verdict("green", f"{words}, as wanted.", (memorized.name,))
        elif high < MEMORIZED_WANTED:
            wanted = Verdict("red", f"{words}: less than was wanted.", (memorized.name,))
        else:
            wanted = Verdict(
                "yellow", f"{words}: whether it is enough cannot be told.", (memorized.name,)
            )
        changed["memorization"] = wanted
    return changed


def _fit_by_folds(by_name: dict[str, Measurement]) -> Verdict | None:
    folds = by_name.get("out_of_fold_nll_best")
    if folds is None or "base" not in folds.contrasts:
        return None
    contrast = folds.contrasts["base"]
    low, high = -contrast.interval.high, -contrast.interval.low
    figure = f"{_number(-contrast.difference)} nats/token {_ends(low, high)}"
    if high < 0:
        return Verdict(
            "red", f"Worse than the base model by cross-validation: {figure}.", (folds.name,)
        )
    unclear = "No significant difference from the base model"
    words = "Better than the base model" if low > 0 else unclear
    return Verdict(
        "yellow",
        f"{words} by cross-validation, gain {figure}; too few groups for a sealed test.",
        (folds.name,),
    )


def _headline(by_name: dict[str, Measurement], fit: Verdict, peak: str) -> str:
    best = by_name.get("test_nll_best")
    base = by_name.get("test_nll_base")
    if best is None or base is None or "base" not in best.contrasts:
        return f"{fit.sentence} {peak}".strip()
    gain = best.contrasts["base"]
    low, high = -gain.interval.high, -gain.interval.low
    words = {
        "green": "Better than the base model on text it has never seen",
        "red": "Worse than the base model on text it has never seen",
    }.get(fit.color, "Not clearly different from the base model on text it has never seen")
    change = f"{-gain.difference:.3f} {_ends(low, high)} less"
    if gain.difference > 0:
        change = f"{gain.difference:.3f} {_ends(-high, -low)} more"
    sentences = [
        f"{words}: the loss is {best.value:.3f} instead of {base.value:.3f} nats/token, {change}."
    ]
    if peak:
        sentences.append(peak)
    for control, words in (
        ("fixed_epochs", "than training without regularization for a fixed number of epochs"),
        ("last", "than its own last checkpoint"),
    ):
        contrast = best.contrasts.get(control)
        if contrast and contrast.interval.high < 0:
            sentences.append(
                f"It is better {words} by {-contrast.difference:.3f} "
                f"{_ends(-contrast.interval.high, -contrast.interval.low)}."
            )
    return " ".join(sentences)


def _ends(low: float, high: float, form: str = ".3f") -> str:
    return Interval(low, high).brackets(form)


def _number(value: float) -> str:
    return f"{value:.3f}"
