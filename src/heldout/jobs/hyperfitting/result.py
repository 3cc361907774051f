"""What a hyperfitting came to: verdict, numbers, page. All of it is computed from the folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.run import Run
from heldout.core.shown import Shown, framed
from heldout.jobs.hyperfitting.evaluate import text_conditions
from heldout.jobs.hyperfitting.judgements import export_judgements
from heldout.jobs.hyperfitting.measure import HUMAN, TextFigures
from heldout.jobs.kit.hashes import write_hashes
from heldout.report import hyperfit as page

SCHEMA = "heldout.hyperfit/1"
JUDGED = (
    ("hyperfitted_greedy", "base_greedy"),
    ("hyperfitted_greedy", "base_top_p"),
    ("hyperfitted_greedy", HUMAN),
)
ENTROPY_BINS = np.linspace(0, 10, 41)  # nats; what lies beyond counts in the last
Outcome = Literal["worked", "partly", "failed"]
Numbers = Mapping[str, Measurement]


@dataclass(frozen=True)
class HyperfitResult(Shown):
    """The run folder, and whether greedy text became varied, fluent and sharply predicted."""

    run: Run
    outcome: Outcome
    sentences: list[str]
    measurements: list[Measurement | NotMeasured]
    warnings: list[str]

    def table_rows(self) -> list[Measurement | NotMeasured]:
        """The measurements."""
        return self.measurements

    def _repr_html_(self) -> str:
        return framed(self, self.report)

    @property
    def best(self) -> Path:
        return self.run.best

    @property
    def report(self) -> Path:
        return self.run.path("report.html")

    @property
    def figures(self) -> dict[str, float]:
        """Every measured value by its name."""
        return {m.name: m.value for m in self.measurements if isinstance(m, Measurement)}

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.hyperfit/1``."""
        run = self.run
        return {
            "schema": SCHEMA,
            "run": str(run.folder),
            "best": str(run.best),
            "early_stopped": str(run.path("early_stopped")),
            "report": str(self.report),
            "verdict": {"outcome": self.outcome, "sentences": self.sentences},
            "warnings": self.warnings,
            "training": {
                "target_loss": run.recipe.hyperfit.target_loss,
                "kept": run.read_json("kept.json"),
                "checkpoints": run.history(),
            },
            "arms": [
                {"name": condition.name, "title": condition.title, "model": condition.model}
                for condition in text_conditions(run.recipe)
            ]
            + [{"name": HUMAN, "title": "Human", "model": "human"}],
            "measurements": [each.to_json() for each in self.measurements],
        }


def conclude_hyperfit(run: Run) -> HyperfitResult:
    """Measure, judge and write ``hyperfit.json``, ``judgements.jsonl`` and ``report.html``."""
    figures = TextFigures.of(run)
    measured = figures.measurements()
    numbers = {each.name: each for each in measured if isinstance(each, Measurement)}
    outcome = outcome_of(numbers, run.recipe.hyperfit.max_repetition)
    result = HyperfitResult(
        run, outcome, sentences(numbers, outcome, figures.new_tokens), measured, _warnings(run)
    )
    positions = figures.positions()
    run.write_json("hyperfit.json", {**result.to_json(), "positions": positions})
    export_judgements(run, run.path("judgements.jsonl"), JUDGED)
    page.write_hyperfit(_page(result, figures, numbers, positions), result.report)
    write_hashes(run)
    return result


def outcome_of(numbers: Numbers, max_repetition: float) -> Outcome:
    """Worked: surely more varied than greedy text of the base, not repetitive, surely sharper."""
    ours = "hyperfitted_greedy"
    varied = numbers[f"ttr_{ours}"].contrasts["base_greedy"].interval.low > 0
    if not varied:
        return "failed"
    fluent = numbers[f"seq_rep_4_{ours}"].value <= max_repetition
    sharper = numbers["entropy_hyperfitted"].contrasts["base"].interval.high < 0
    return "worked" if fluent and sharper else "partly"


def sentences(numbers: Numbers, outcome: Outcome, num_tokens: int) -> list[str]:
    """The verdict first, then its price, its rivals and what was copied."""

    def value(name: str) -> float:
        return numbers[name].value

    begins = {
        "worked": "Hyperfitting worked",
        "partly": "Hyperfitting worked in part",
        "failed": "Hyperfitting did not work",
    }
    entropy = 1 - value("entropy_hyperfitted") / value("entropy_base")
    said = [
        f"{begins[outcome]}: of {num_tokens} greedy tokens "
        f"{value('ttr_hyperfitted_greedy'):.0%} are distinct, from {value('ttr_base_greedy'):.0%} "
        f"(people: {value('ttr_human'):.0%}), {value('seq_rep_4_hyperfitted_greedy'):.0%} of the "
        f"4-grams are repeats, from {value('seq_rep_4_base_greedy'):.0%}, and the entropy of its "
        f"predictions is {abs(entropy):.0%} {'lower' if entropy > 0 else 'higher'}."
    ]
    nll, base = value("nll_hyperfitted"), value("nll_base")
    words = "worse, as it must get" if nll > base else "better, which hyperfitting does not do"
    said.append(
        f"As a predictor of other text it got {words}: {base:.2f} to {nll:.2f} nats/token, a "
        f"perplexity of {np.exp(base):.0f} to {np.exp(nll):.0f}. Do not use it where likelihood "
        "counts."
    )
    against = numbers["ttr_hyperfitted_greedy"].contrasts["base_top_p"]
    low, high = against.interval.low, against.interval.high
    than = "more varied than" if low > 0 else "less varied than"
    if low <= 0 <= high:
        than = "as varied as"
    if against.interval.is_withheld:
        than = "not surely more or less varied than"
    distance = numbers["distance_hyperfitted_greedy"].contrasts["base_top_p"]
    low, high = distance.interval.low, distance.interval.high
    far = "as far from" if low <= 0 <= high else "farther from" if low > 0 else "nearer to"
    if distance.interval.is_withheld:
        far = "not surely nearer to or farther from"
    said.append(
        f"Its greedy text is {than} top-p sampling from the base model "
        f"({value('ttr_hyperfitted_greedy'):.2f} against {value('ttr_base_top_p'):.2f}), and {far} "
        "the range of human text."
    )
    early = numbers["ttr_hyperfitted_greedy"].contrasts["early_stopped_greedy"]
    said.append(
        f"Stopping at the lowest validation loss gives {value('ttr_early_stopped_greedy'):.2f}: "
        f"a difference of {early.difference:+.2f} "
        f"{early.interval.brackets('+.2f')}."
    )
    excess = numbers["overlap_excess_hyperfitted_greedy"]
    assert excess.interval is not None
    copies = (
        "More of the sample is copied than stands by chance in other text of its kind"
        if excess.interval.low > 0
        else "No more of the sample is copied than stands by chance in other text of its kind"
    )
    if excess.interval.is_withheld:
        copies = (
            "Too few groups tell whether more of the sample is copied than stands by chance in "
            "other text of its kind"
        )
    said.append(
        f"{copies}: the longest match has {value('overlap_train_hyperfitted_greedy'):.1f} tokens "
        f"on average against {value('overlap_heldout_hyperfitted_greedy'):.1f}, at most "
        f"{value('longest_copy_hyperfitted_greedy'):.0f}; with the citation blocker at most "
        f"{value('longest_copy_hyperfitted_blocker'):.0f}."
    )
    return said


def _warnings(run: Run) -> list[str]:
    found = [
        f"{check['name']}: {check['message']}"
        for check in run.read_json("checks.json")
        if check["status"] == "warning"
    ]
    kept, settings = run.read_json("kept.json"), run.recipe.hyperfit
    if all(each["train_nll"] > settings.target_loss for each in run.history()):
        found.append(
            f"training loss: {run.history()[-1]['train_nll']:.2f} nats/token at the end, over the "
            f"target of {settings.target_loss:g}; give train.max_epochs more, or a higher rate"
        )
    if kept["repetition"] > settings.max_repetition:
        found.append(
            f"repetition: no checkpoint repeats at most {settings.max_repetition:g} of its 4-grams "
            "on the validation contexts; the least repetitive was kept"
        )
    return found


def _page(
    result: HyperfitResult,
    figures: TextFigures,
    numbers: Numbers,
    positions: list[dict[str, Any]],
) -> page.HyperfitPage:
    """What the page shows, all numbers computed."""
    run = result.run
    written = run.read_json("contexts.json")
    titles = {condition.name: condition.title for condition in text_conditions(run.recipe)} | {
        HUMAN: "Human"
    }
    texts = {
        name: run.read_json(f"texts/{name}.json")["texts"] for name in titles if name != HUMAN
    } | {HUMAN: written["reference_texts"]}
    environment = run.read_json("environment.json")
    return page.HyperfitPage(
        title=run.folder.name,
        model=environment["model"],
        method=run.recipe.model.method,
        outcome=result.outcome,
        sentences=result.sentences,
        warnings=result.warnings,
        num_contexts=len(figures),
        context_tokens=run.recipe.hyperfit.context_tokens,
        new_tokens=figures.new_tokens,
        checkpoints=[
            page.CheckpointPoint(
                each["step"],
                each["epoch"],
                each["train_nll"],
                each["validation_nll"],
                each["ttr"],
                each["repetition"],
                each["is_lowest"],
            )
            for each in run.history()
        ],
        kept_step=run.read_json("kept.json")["step"],
        target_loss=run.recipe.hyperfit.target_loss,
        titles=titles,
        numbers=dict(numbers),
        not_measured=[each for each in result.measurements if isinstance(each, NotMeasured)],
        entropy_edges=ENTROPY_BINS.tolist(),
        entropy_shares={name: _histogram(values) for name, values in figures.all_entropies.items()},
        positions=[page.PositionPoint(**_renamed(each)) for each in positions],
        samples=[
            page.TextSample(
                written["prompt_texts"][place], {name: texts[name][place] for name in titles}
            )
            for place in range(min(run.recipe.eval.num_samples, len(figures)))
        ],
        hardware=environment["hardware"],
        recipe=run.recipe.to_toml(),
    )


def _histogram(entropies: np.ndarray) -> list[float]:
    counts, _ = np.histogram(np.minimum(entropies, ENTROPY_BINS[-1] - 1e-9), ENTROPY_BINS)
    return (counts / len(entropies)).tolist()


def _renamed(entry: dict[str, Any]) -> dict[str, Any]:
    entry = dict(entry)
    return {"start": entry.pop("from"), "end": entry.pop("to"), **entry}
