"""From measurements to six lights and one sentence; each light has one contrast, fixed here."""

from dataclasses import dataclass

from heldout.core.measurement import Contrast, Measurement, NotMeasured
from heldout.core.stats import LEAST_HELD_OUT, holm
from heldout.core.verdict import Light, Verdict

SIGNIFICANCE = 0.05  # family-wise, after Holm's adjustment over the lights that were measured
# Shares of the training rows, beyond what is recited of held-out rows and by the base model.
RECITAL_THAT_MATTERS = 0.05
RECITAL_RULED_OUT = 0.1  # green asks for an interval that ends below it


@dataclass(frozen=True)
class Primary:
    """The contrast that decides a light; ``sign`` is -1 where a lower value is better."""

    light: str
    measurement: str
    control: str
    sign: int


PRIMARY = (
    Primary("fit", "test_nll_best", "base", -1),
    Primary("quality", "metric_best", "base", 1),
    Primary("memorization", "recital_best", "base", -1),
)
UNMEASURED = {
    "quality": "No task metric was named: loss alone does not tell whether answers are better.",
    "memorization": "Not measured: what the model recites was not probed.",
    "forgetting": "Not measured: no text of other domains was given.",
    "leakage": "Not measured beyond the leak-safe split.",
    "confidence": "Not measured.",
}


def judge(
    measurements: list[Measurement | NotMeasured],
    *,
    min_effect: float,
    peak: str = "",
) -> Verdict:
    """All six lights. Missing evidence is ``unknown``, never a pass.

    ``min_effect`` is the smallest difference in nats/token that matters; ``peak`` says where the
    best checkpoint lies, in words, for the headline.
    """
    by_name = {m.name: m for m in measurements if isinstance(m, Measurement)}
    contrasts = {
        primary.light: by_name[primary.measurement].contrasts[primary.control]
        for primary in PRIMARY
        if primary.measurement in by_name
        and primary.control in by_name[primary.measurement].contrasts
    }
    adjusted = holm({light: c.p_value for light, c in contrasts.items() if c.p_value is not None})
    lights = {light: Light("unknown", sentence) for light, sentence in UNMEASURED.items()}
    lights["fit"] = _fit_without_test(by_name)
    for primary in PRIMARY:
        if primary.light not in contrasts:
            continue
        measured, contrast = by_name[primary.measurement], contrasts[primary.light]
        p_value = adjusted.get(primary.light, 0.0)
        if primary.light == "memorization":
            lights[primary.light] = _decide_recital(by_name, measured, contrast, p_value)
        else:
            effect = min_effect if primary.light == "fit" else 0.0
            lights[primary.light] = _decide(primary, measured, contrast, p_value, effect)
    order = ("fit", "quality", "memorization", "forgetting", "leakage", "confidence")
    return Verdict(_headline(by_name, lights["fit"], peak), {name: lights[name] for name in order})


def _decide(
    primary: Primary, measured: Measurement, contrast: Contrast, p_value: float, min_effect: float
) -> Light:
    gain = primary.sign * contrast.difference
    low, high = sorted(
        (primary.sign * contrast.interval.low, primary.sign * contrast.interval.high)
    )
    figure = f"{_number(abs(gain))} {measured.unit} [{_number(low)}, {_number(high)}]"
    names = (measured.name,)
    if measured.num_units < LEAST_HELD_OUT and gain > 0:
        few = f"but {measured.num_units} held-out groups are too few for a claim"
        return Light("yellow", f"Better than the base model by {figure}, {few}.", names)
    if p_value < SIGNIFICANCE and low > 0 and gain >= min_effect:
        return Light("green", f"Better than the base model by {figure}.", names)
    if p_value < SIGNIFICANCE and high < 0 and -gain >= min_effect:
        return Light("red", f"Worse than the base model by {figure}.", names)
    if -min_effect < low and high < min_effect:
        return Light("yellow", f"No difference to the base model that matters: {figure}.", names)
    return Light("yellow", f"Cannot tell it from the base model: {figure}.", names)


def _decide_recital(
    by_name: dict[str, Measurement], measured: Measurement, contrast: Contrast, p_value: float
) -> Light:
    low, high = contrast.interval.low, contrast.interval.high
    sentence = (
        f"Recites {measured.value:.0%} of the training rows word for word; "
        f"{contrast.difference:.0%} [{low:.0%}, {high:.0%}] beyond held-out rows and the base "
        "model."
    )
    plain = by_name.get("recital_fixed_epochs")
    if plain is not None:
        sentence += f" Without regularization: {plain.value:.0%}."
    if p_value < SIGNIFICANCE and low > 0 and contrast.difference >= RECITAL_THAT_MATTERS:
        return Light("red", sentence, (measured.name,))
    if high < RECITAL_RULED_OUT:
        return Light("green", sentence, (measured.name,))
    return Light("yellow", sentence, (measured.name,))


def _fit_without_test(by_name: dict[str, Measurement]) -> Light:
    folds = by_name.get("out_of_fold_nll_best")
    if folds is None or "base" not in folds.contrasts:
        return Light("unknown", "Not measured: the sealed test part was not opened.")
    contrast = folds.contrasts["base"]
    low, high = -contrast.interval.high, -contrast.interval.low
    figure = f"{_number(-contrast.difference)} nats/token [{_number(low)}, {_number(high)}]"
    if high < 0:
        return Light(
            "red", f"Worse than the base model by cross-validation: {figure}.", (folds.name,)
        )
    words = "Better than the base model" if low > 0 else "Cannot tell it from the base model"
    return Light(
        "yellow",
        f"{words} by cross-validation, gain {figure}; too few groups for a sealed test.",
        (folds.name,),
    )


def _headline(by_name: dict[str, Measurement], fit: Light, peak: str) -> str:
    best = by_name.get("test_nll_best")
    base = by_name.get("test_nll_base")
    if best is None or base is None or "base" not in best.contrasts:
        return f"{fit.sentence} {peak}".strip()
    gain = best.contrasts["base"]
    low, high = -gain.interval.high, -gain.interval.low
    words = {
        "green": "Better than the base model on text it has never seen",
        "red": "Worse than the base model on text it has never seen",
    }.get(fit.light, "Not clearly different from the base model on text it has never seen")
    sentences = [
        f"{words}: the loss is {best.value:.3f} instead of {base.value:.3f} nats/token, "
        f"{-gain.difference:.3f} [{low:.3f}, {high:.3f}] less."
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
                f"[{-contrast.interval.high:.3f}, {-contrast.interval.low:.3f}]."
            )
    return " ".join(sentences)


def _number(value: float) -> str:
    return f"{value:.3f}"
