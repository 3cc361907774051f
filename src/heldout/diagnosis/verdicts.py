"""From measurements to six verdicts and a headline; each has one contrast, fixed here."""

from dataclasses import dataclass, replace

from heldout.core.facts import Facts
from heldout.core.holm import holm
from heldout.core.measurement import Contrast, Interval, Measurement, NotMeasured
from heldout.core.stats import LEAST_HELD_OUT
from heldout.core.verdict import VERDICTS, Verdict, Verdicts
from heldout.diagnosis.features import rise, rise_surely

SIGNIFICANCE = 0.05  # family-wise, after Holm's adjustment over the verdicts that were measured


@dataclass(frozen=True)
class Primary:
    """The contrast that decides a verdict; ``sign`` is -1 where a lower value is better.

    ``matters`` is the smallest change for the worse that turns the verdict red; green asks for an
    interval that ends below ``ruled_out``. None: the run's own minimum effect decides.
    """

    verdict: str  # its name, one of VERDICTS
    measurement: str
    control: str
    sign: int
    matters: float | None = None
    ruled_out: float | None = None
    source: str = ""


PRIMARY = (
    Primary("fit", "test_nll_best", "base", -1, source="eval.min_effect of the recipe"),
    Primary("quality", "metric_best", "base", 1, source="any sure change of the user's metric"),
    Primary(
        "memorization",
        "recital_best",
        "base",
        -1,
        0.05,
        0.1,
        # Shares of the training rows, beyond what is recited of held-out rows and by the base.
        "one training row in twenty; models of 6B parameters recite about 1 % of their training "
        "text (Carlini 2022, arXiv 2202.07646)",
    ),
    Primary(
        "forgetting",
        "forgetting_best",
        "base",
        -1,
        0.05,
        0.1,
        "5 % of the perplexity on other text; repeated fine-tuning costs that much and more "
        "(Luo 2023, arXiv 2308.08747)",
    ),
    Primary(
        "confidence",
        "ece_best",
        "base",
        -1,
        0.1,
        0.1,
        "10 points of probability: what Guo 2017 (arXiv 1706.04599) found in uncalibrated networks",
    ),
)
LEAK_THAT_MATTERS = 0.01  # share of the held-out rows: one in a hundred moves a mean visibly
MEMORIZED_WANTED = 0.5  # with the goal to recite: share of the training rows
UNMEASURED = {
    "quality": "No task metric was named: loss alone does not tell whether answers are better.",
    "memorization": "Not measured: what the model recites was not probed.",
    "forgetting": "Not measured: no text of other domains was given.",
    "leakage": "Not measured beyond the leak-safe split.",
    "confidence": "Not measured.",
}


def verdicts_of(
    measurements: list[Measurement | NotMeasured],
    *,
    min_effect: float,
    peak: str = "",
    facts: Facts | None = None,
) -> Verdicts:
    """All six verdicts. Missing evidence is ``unknown``, never a pass.

    ``min_effect`` is the smallest difference in nats/token that matters; ``peak`` says where the
    best checkpoint lies, in words, for the headline. ``facts`` bring the goal, leaks that were
    looked for in the data, and how the loss went.
    """
    facts = facts or Facts()
    by_name = {m.name: m for m in measurements if isinstance(m, Measurement)}
    contrasts = {
        primary.verdict: by_name[primary.measurement].contrasts[primary.control]
        for primary in PRIMARY
        if primary.measurement in by_name
        and primary.control in by_name[primary.measurement].contrasts
    }
    adjusted = holm({name: c.p_value for name, c in contrasts.items() if c.p_value is not None})
    verdicts = {name: Verdict("unknown", sentence) for name, sentence in UNMEASURED.items()}
    verdicts["fit"] = _fit_without_test(by_name)
    for primary in PRIMARY:
        if primary.verdict not in contrasts:
            continue
        measured, contrast = by_name[primary.measurement], contrasts[primary.verdict]
        p_value = adjusted.get(primary.verdict, 0.0)
        if primary.matters is None:
            effect = min_effect if primary.verdict == "fit" else 0.0
            verdicts[primary.verdict] = _decide(primary, measured, contrast, p_value, effect)
        else:
            sentence = _harm(primary.verdict, by_name, measured, contrast)
            verdicts[primary.verdict] = _decide_harm(primary, contrast, p_value, sentence)
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
    return Verdict("yellow", f"Cannot tell it from the base model: a gain of {figure}.", names)


def _decide_harm(primary: Primary, contrast: Contrast, p_value: float, sentence: str) -> Verdict:
    """Red where the harm is sure and matters, green where it is ruled out, else yellow."""
    assert primary.matters is not None
    assert primary.ruled_out is not None
    low, high = contrast.interval.low, contrast.interval.high
    names = (primary.measurement,)
    if p_value < SIGNIFICANCE and low > 0 and contrast.difference >= primary.matters:
        return Verdict("red", sentence, names)
    if high < primary.ruled_out:
        return Verdict("green", sentence, names)
    return Verdict("yellow", sentence, names)


def _harm(
    verdict: str, by_name: dict[str, Measurement], measured: Measurement, contrast: Contrast
) -> str:
    low, high = contrast.interval.low, contrast.interval.high
    if verdict == "forgetting":
        words = "Worse" if contrast.difference > 0 else "Better"
        low, high = (low, high) if contrast.difference > 0 else (-high, -low)
        return (
            f"{words} than the base model on other text by {_number(abs(contrast.difference))} "
            f"{measured.unit} {_ends(low, high)}."
        )
    if verdict == "confidence":
        sentence = (
            f"Its confidence misses its accuracy by {measured.value:.1%} on average; "
            f"{contrast.difference:+.1%} {_ends(low, high, '+.1%')} against the base model."
        )
        over = by_name.get("overconfidence_best")
        if over is not None and abs(over.value) > measured.value / 2:
            sentence += " It is too sure." if over.value > 0 else " It is not sure enough."
        return sentence
    sentence = (
        f"Recites {measured.value:.0%} of the training rows word for word; "
        f"{contrast.difference:.0%} {_ends(low, high, '.0%')} beyond held-out rows and the base "
        "model."
    )
    plain = by_name.get("recital_fixed_epochs")
    if plain is not None:
        sentence += f" Without regularization: {plain.value:.0%}."
    return sentence


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
    sentence = (
        f"{share:.1%} of the held-out rows lie in the training data too: the held-out figures "
        "flatter the model."
    )
    return Verdict("red" if share >= LEAK_THAT_MATTERS else "yellow", sentence)


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


def _fit_without_test(by_name: dict[str, Measurement]) -> Verdict:
    folds = by_name.get("out_of_fold_nll_best")
    if folds is None or "base" not in folds.contrasts:
        return Verdict("unknown", "Not measured: the sealed test part was not opened.")
    contrast = folds.contrasts["base"]
    low, high = -contrast.interval.high, -contrast.interval.low
    figure = f"{_number(-contrast.difference)} nats/token {_ends(low, high)}"
    if high < 0:
        return Verdict(
            "red", f"Worse than the base model by cross-validation: {figure}.", (folds.name,)
        )
    words = "Better than the base model" if low > 0 else "Cannot tell it from the base model"
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
