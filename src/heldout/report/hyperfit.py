"""The page of a hyperfitting: did it work, what did it cost, and the texts to see for oneself.

Every number is computed before it comes here; nothing but drawing is done.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from heldout.core.files import write_text
from heldout.core.measurement import TOO_FEW, Interval, Measurement, NotMeasured
from heldout.report import words
from heldout.report.chart import Axis, Chart, Figure, Key, Mark, Rule, epoch_axis, table_of
from heldout.report.figures import AT_EPOCH, LOSS
from heldout.report.forest import ForestRow, forest
from heldout.report.page import render_page

OURS, BASE = "hyperfitted_greedy", "base_greedy"

# condition or model -> color and dash, the same in all figures
STYLES = {
    OURS: ("heldout", "solid"),
    BASE: ("base", "solid"),
    "early_stopped_greedy": ("train", "dash"),
    "base_top_p": ("run2", "dashdot"),
    "human": ("kept", "dot"),
    "hyperfitted_blocker": ("run5", "longdash"),
}
MODELS = {
    "base": ("Base", "base", "solid"),
    "early_stopped": ("Early-stopped", "train", "dash"),
    "hyperfitted": ("Hyperfitted", "heldout", "solid"),
}
COLUMNS = (
    ("ttr", "TTR", 3),
    ("distinct_2", "Distinct-2", 3),
    ("distinct_3", "Distinct-3", 3),
    ("seq_rep_4", "seq-rep-4", 3),
    ("self_bleu", "Self-BLEU", 3),
    ("compression_ratio", "Compression", 2),
    ("distance", "Distance", 2),
    ("inside_band", "In the band", 2),
    ("overlap_train", "Match, sample", 1),
    ("overlap_heldout", "Match, other text", 1),
    ("longest_copy", "Longest match", 0),
)
MODEL_ROWS = (
    ("nll", "Loss on the human continuation, nats/token", 3),
    ("entropy", "Entropy of the prediction, nats", 3),
    ("top_probability", "Probability of the likeliest token", 3),
    ("accuracy", "True token is the likeliest", 3),
    ("log_rank", "Rank of the true token, mean ln(1 + rank)", 2),
)


@dataclass(frozen=True)
class CheckpointPoint:
    step: int
    epoch: float
    train_nll: float
    validation_nll: float
    ttr: float
    repetition: float
    is_lowest: bool


@dataclass(frozen=True)
class PositionPoint:
    """One figure of one subject (condition or model) over a block of positions."""

    figure: str
    subject: str
    start: int
    end: int
    value: float
    low: float | None  # None where contexts are too few for an interval
    high: float | None


@dataclass(frozen=True)
class TextSample:
    prompt: str
    texts: dict[str, str]  # condition -> continuation


@dataclass(frozen=True)
class HyperfitPage:
    """All that the page shows."""

    title: str
    model: str
    method: str
    outcome: str
    sentences: Sequence[str]
    warnings: Sequence[str]
    num_contexts: int
    context_tokens: int
    new_tokens: int
    checkpoints: Sequence[CheckpointPoint]
    kept_step: int
    target_loss: float
    titles: dict[str, str]  # condition -> words
    numbers: dict[str, Measurement]
    not_measured: Sequence[NotMeasured]
    entropy_edges: Sequence[float]
    entropy_shares: dict[str, list[float]]
    positions: Sequence[PositionPoint]
    samples: Sequence[TextSample]
    hardware: str
    recipe: str


def write_hyperfit(shown: HyperfitPage, path: Path) -> Path:
    """Write one self-contained HTML file; whole or not at all."""
    return write_text(path, render_hyperfit(shown))


def render_hyperfit(shown: HyperfitPage) -> str:
    charts = [
        losses(shown),
        text_over_epochs(shown),
        diversity_of_conditions(shown),
        repetition_of_conditions(shown),
        entropies(shown),
        by_position(shown, "new_types", "New tokens by position", "share of first occurrences"),
        by_position(shown, "repeats", "Repeats by position", "share of 4-grams that came before"),
    ]
    return render_page(
        "hyperfit.html.j2",
        charts,
        title=shown.title,
        shown=shown,
        columns=COLUMNS,
        model_rows=MODEL_ROWS,
        models=MODELS,
        cell=lambda name, digits: _cell(shown, name, digits),
        ours=OURS,
    )


def losses(shown: HyperfitPage) -> Chart:
    """Training and validation loss over epochs."""
    marks = [
        _over_epochs(shown, "train", "training", lambda point: point.train_nll),
        _over_epochs(shown, "heldout", "validation", lambda point: point.validation_nll),
    ]
    first, last = shown.checkpoints[0], shown.checkpoints[-1]
    return Chart(
        "losses",
        "Loss on the sample and on other text",
        Figure(
            epoch_axis(last.epoch),
            Axis(low=0),
            marks,
            [Rule("train", y=shown.target_loss), *_compared_epochs(shown)],
        ),
        LOSS,
        f"Line chart over epochs. Training loss falls from {first.train_nll:.2f} to "
        f"{last.train_nll:.2f}; validation loss goes from {first.validation_nll:.2f} to "
        f"{last.validation_nll:.2f}.",
        "Training ends where the training loss meets the dotted target. Validation loss rises "
        "meanwhile: by that measure the model gets worse.",
        table_of("epoch", marks),
        340,
        (
            Key("The sample", "train"),
            Key("Validation contexts' text", "heldout"),
            Key("Target", "train", "dot"),
        ),
    )


def text_over_epochs(shown: HyperfitPage) -> Chart:
    """Diversity and repetition of greedy text over epochs."""
    marks = [
        _over_epochs(shown, "heldout", "TTR", lambda point: point.ttr),
        _over_epochs(shown, "base", "repeated 4-grams", lambda point: point.repetition, "dash"),
    ]
    first, last = shown.checkpoints[0], shown.checkpoints[-1]
    return Chart(
        "text",
        "Greedy text on the way",
        Figure(epoch_axis(last.epoch), Axis(low=0, high=1), marks, _compared_epochs(shown)),
        "Shares of tokens and of 4-grams, on validation contexts",
        f"Line chart over epochs. TTR goes from {first.ttr:.2f} to {last.ttr:.2f}, the share of "
        f"repeated 4-grams from {first.repetition:.2f} to {last.repetition:.2f}.",
        "Distinct tokens rise and repeats fall while the validation loss beside it gets worse.",
        table_of("epoch", marks),
        340,
        (Key("Distinct tokens (TTR)", "heldout"), Key("Repeated 4-grams", "base", "dash")),
    )


def diversity_of_conditions(shown: HyperfitPage) -> Chart:
    """TTR of every condition with its interval."""
    return forest(
        "ttr",
        "Distinct tokens in greedy and sampled text",
        f"TTR over {shown.new_tokens} tokens, {shown.num_contexts} held-out contexts",
        "Higher is more varied, and more than the human text is too much. Squares with 95 % "
        "intervals over contexts.",
        _condition_rows(shown, "ttr"),
    )


def repetition_of_conditions(shown: HyperfitPage) -> Chart:
    """seq-rep-4 of every condition with its interval."""
    return forest(
        "repetition",
        "Repetition",
        f"Share of 4-grams that the text has had before, over {shown.new_tokens} tokens",
        "Lower is better; people repeat next to nothing over such a length.",
        _condition_rows(shown, "seq_rep_4"),
    )


def entropies(shown: HyperfitPage) -> Chart:
    """How sharp predictions are: the distribution of entropies over the human text's tokens."""
    middles = [(low + high) / 2 for low, high in pairwise(shown.entropy_edges)]
    marks = []
    for name, (label, token, dash) in MODELS.items():
        shares = shown.entropy_shares["best" if name == "hyperfitted" else name]
        marks.append(
            Mark(
                middles,
                [100 * share for share in shares],
                token,
                name=label,
                hover="%{y} % of tokens at %{x} nats",
                dash=dash,
                is_stepped=True,
            )
        )
    means = ", ".join(
        f"{label} {shown.numbers[f'entropy_{name}'].value:.2f}"
        for name, (label, *_) in MODELS.items()
    )
    return Chart(
        "entropies",
        "How sharp the predictions are",
        Figure(Axis("entropy of the next-token prediction, nats"), Axis(low=0, suffix=" %"), marks),
        "Share of the human text's tokens",
        f"Histograms of the entropy of next-token predictions. Means in nats: {means}.",
        "The farther left, the surer the model is of its next token, rightly or not.",
        table_of("entropy, nats", marks),
        340,
        tuple(Key(label, token, dash) for label, token, dash in MODELS.values()),
    )


def by_position(shown: HyperfitPage, name: str, title: str, unit: str) -> Chart:
    """A figure of each main condition over the blocks of the continuation."""
    marks, legend = [], []
    ends: list[float] = [0.0]
    for subject, (token, dash) in STYLES.items():
        points = [p for p in shown.positions if p.figure == name and p.subject == subject]
        if not points or subject == "hyperfitted_blocker":
            continue
        label = shown.titles[subject]
        marks.append(
            Mark(
                [(point.start + point.end) / 2 for point in points],
                [point.value for point in points],
                token,
                name=label,
                hover="tokens %{first} to %{last}\n%{y} (%{interval})",
                details={
                    "first": [words.integer(p.start + 1) for p in points],
                    "last": [words.integer(p.end) for p in points],
                    "interval": [_between(p.low, p.high) for p in points],
                },
                dash=dash,
                symbol="circle",
            )
        )
        ends += [point.value for point in points]
        legend.append(Key(label, token, dash))
    return Chart(
        name.replace("_", "-"),
        title,
        Figure(
            Axis("token of the continuation", low=0, high=shown.new_tokens),
            Axis(low=0, high=max(ends) * 1.08 + 0.01),
            marks,
        ),
        unit[:1].upper() + unit[1:],
        f"Line chart of {len(legend)} arms over the continuation: {unit}.",
        "Text that falls into a loop shows at its end first.",
        table_of("token of the continuation", marks),
        320,
        tuple(legend),
    )


def _condition_rows(shown: HyperfitPage, figure: str) -> list[ForestRow]:
    rows = []
    for condition, title in shown.titles.items():
        measured = shown.numbers[f"{figure}_{condition}"]
        token = STYLES.get(condition, ("ink", ""))[0]
        rows.append(ForestRow(title, measured.value, measured.interval, condition == OURS, token))
    return rows


def _over_epochs(
    shown: HyperfitPage,
    token: str,
    label: str,
    value: Callable[[CheckpointPoint], float],
    dash: str = "solid",
) -> Mark:
    return Mark(
        [point.epoch for point in shown.checkpoints],
        [value(point) for point in shown.checkpoints],
        token,
        name=label,
        hover=AT_EPOCH,
        dash=dash,
        symbol="circle",
        size=5,
    )


def _compared_epochs(shown: HyperfitPage) -> list[Rule]:
    """Where the two checkpoints lie that are compared."""
    early = [point for point in shown.checkpoints if point.is_lowest][-1]
    kept = next(point for point in shown.checkpoints if point.step == shown.kept_step)
    rules = [Rule("kept", x=kept.epoch, label="kept")]
    if early.epoch != kept.epoch:
        rules.insert(0, Rule("base", x=early.epoch, label="early-stopped"))
    return rules


def _cell(shown: HyperfitPage, name: str, digits: int) -> tuple[str, str]:
    """A value and its interval, in words."""
    measured = shown.numbers[name]
    bounds: Interval | None = measured.interval
    value = words.number(measured.value, digits)
    if bounds is None or bounds.is_withheld:
        return value, words.interval(bounds)
    return value, f"{words.number(bounds.low, digits)} to {words.number(bounds.high, digits)}"


def _between(low: float | None, high: float | None) -> str:
    return TOO_FEW if low is None or high is None else f"{low:.2f} to {high:.2f}"
