"""Numbers, durations and names as a reader wants to see them."""

import math
from datetime import datetime

from heldout.core.measurement import TOO_FEW, Contrast, Interval

MODELS = {
    "base": "Base model",
    "best": "Kept (best)",
    "last": "Last checkpoint",
    "fixed_epochs": "Fixed epochs, no regularization",
}

_QUANTITIES = {
    "test_nll": "Test loss",
    "test_bits_per_byte": "Test bits per byte",
    "out_of_fold_nll": "Out-of-fold loss",
    "out_of_fold_bits_per_byte": "Out-of-fold bits per byte",
    "generalization_gap": "Generalization gap",
    "metric": "Task metric",
    "recital": "Training rows recited",
    "extraction": "Training rows extracted",
    "discoverable": "Training rows found by sampling",
    "membership_auc_loss": "Membership by loss",
    "membership_auc_zlib_total": "Membership by whole loss over zlib",
    "membership_auc_zlib": "Membership by zlib",
    "membership_auc_min_k": "Membership by Min-K %",
    "membership_auc_min_k_plus": "Membership by Min-K %++",
    "membership_auc_reference": "Membership against the base",
    "membership_tpr": "Members told at 1 % false alarms",
    "exposure": "Exposure of planted secrets",
    "personal_data_recited": "Personal data recited",
    "memorized_bits": "Bits memorized",
    "bits_per_parameter": "Bits per trained parameter",
    "ece": "Calibration error",
    "ece_adaptive": "Calibration error, adaptive bins",
    "brier": "Brier score",
    "entropy": "Entropy of predictions",
    "overconfidence": "Confidence minus accuracy",
    "forgetting": "Loss on other text",
    "generated_nll": "Base model's loss on what is written",
    "seq_rep_4": "Repeated 4-grams in a text",
    "self_bleu": "Self-BLEU",
    "ttr": "Types per token",
    "ended": "Texts that end by themselves",
    "near_identical": "The same answer to different prompts",
    "fragment_longest": "Longest copy of training text",
    "fragment_coverage": "Copied from training text",
    "prompt_sensitivity": "Moved by harmless rewordings",
    "key_fact_sensitivity": "Moved by a changed key fact",
}


def number(value: float | None, digits: int = 3) -> str:
    """Fixed-point with a true minus sign; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Like ``number``, with a plus for what is positive."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(f"{value:.{digits}f}") != 0 else text


def short(value: float) -> str:
    """Three significant digits, for axes of any size: 0.0003, 12.5, 1e-05."""
    return f"{value:.3g}".replace("-", "−")


def compact(value: float | None) -> str:
    """Four significant digits as axes and their tables have them: 0.0123, 12,500, 2.5e8."""
    if value is None:
        return ""
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        mantissa, power = f"{value:.2e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    else:
        text = f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def interval(bounds: Interval | None, *, sign: bool = False) -> str:
    """``1.210 to 1.340``; empty where there is none, and said where it is withheld."""
    if bounds is None:
        return ""
    if bounds.is_withheld:
        return TOO_FEW
    show = signed if sign else number
    return f"{show(bounds.low)} to {show(bounds.high)}"


def with_level(bounds: Interval, *, sign: bool = False) -> str:
    """``95 % interval 1.210 to 1.340``, or that groups are too few for one."""
    ends = interval(bounds, sign=sign)
    return ends if bounds.is_withheld else f"{level(bounds)} interval {ends}"


def level(bounds: Interval) -> str:
    return f"{bounds.level * 100:.3g}\u00a0%"


def p_value(value: float | None) -> str:
    if value is None:
        return ""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def percent(share: float) -> str:
    return f"{share * 100:.0f}\u00a0%"


def fine_percent(share: float) -> str:
    """Also of small shares: ``0.023 %``, ``4.6 %``, ``100 %``."""
    text = f"{share * 100:.2g}" if share < 0.095 else f"{share * 100:.0f}"
    return f"{text}\u00a0%"


def signed_percent(share: float) -> str:
    """A difference of shares; one decimal, for the small ones."""
    return f"{signed(share * 100, 1)}\u00a0%"


def integer(value: int) -> str:
    return f"{value:,}"


def thousands(num: float) -> str:
    """``850``, ``16k``, ``1.2M``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if num >= size:
            return f"{num / size:.3g}{letter}"
    return f"{num:.0f}"


def count(num: int, noun: str) -> str:
    """``1 row``, ``2 rows``, ``2 groups of rows``."""
    head, *rest = noun.split(" of ")
    return f"{integer(num)} {' of '.join([head if num == 1 else f'{head}s', *rest])}"


def times(num: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(num, f"{num} times")


def epoch(value: float) -> str:
    """At most two decimals, none that say nothing."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return text or "0"


def duration(seconds: float) -> str:
    """``42 s``, ``4 min 12 s``, ``2 h 05 min``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def date(stamp: str) -> str:
    """``14 March 2026, 10:22`` from an ISO time; what cannot be read is shown as it stands."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def last_name(place: object) -> str:
    """The last part of an absolute path; a Hub id or a relative path stays whole."""
    text = str(place)
    return text.rstrip("/").rsplit("/", 1)[-1] if text.startswith("/") else text


def perplexity(nll_nats: float) -> str:
    """e to the loss, shown shorter the larger it is."""
    value = math.exp(min(nll_nats, 50))
    return f"{value:.1f}" if value < 1000 else short(value)


def model(name: str) -> str:
    return MODELS.get(name, sentence_case(name))


def sentence_case(name: str) -> str:
    """``fixed_epochs`` to ``Fixed epochs``."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def quantity(name: str) -> str:
    """``test_nll_best`` to ``Test loss, kept (best)``."""
    for prefix, words in _QUANTITIES.items():
        rest = name.removeprefix(prefix + "_")
        if rest in MODELS and name == f"{prefix}_{rest}":
            return f"{words}, {_lower_first(MODELS[rest])}"
    for rest, words in MODELS.items():
        if name.endswith(f"_nll_{rest}"):
            subject = sentence_case(name.removesuffix(f"_nll_{rest}"))
            return f"{subject} loss, {_lower_first(words)}"
    return sentence_case(name)


def contrast_line(contrast: Contrast) -> str:
    """``−0.312 (95 %: −0.351 to −0.274)``."""
    bounds = contrast.interval
    ends = interval(bounds, sign=True)
    if not bounds.is_withheld:
        ends = f"{level(bounds)}: {ends}"
    return f"{signed(contrast.difference)} ({ends})"


def _lower_first(words: str) -> str:
    return words[:1].lower() + words[1:]
