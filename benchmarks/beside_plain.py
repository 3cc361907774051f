"""What ``each_regularizer.py`` and ``augmentation.py`` share: one condition beside a plain one.

Both fine-tune the embedded model in many conditions, each next to a control that differs from it
in one thing, keep every finished training in a file, and tell what a condition gains on a sealed
test: an interval over groups, a table, figures for the record and a section of
``docs/what-did-not-help.md``.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.losses import DocumentLosses
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Evaluation
from heldout.core.run_files import RateTrial
from heldout.core.stats import RatioEstimate, ratio_estimate
from heldout.lm.weights import trained_parameters
from heldout.search.learning_rate import search_learning_rate, start_learning_rate
from heldout.training.steps import Steps

MODEL = "package:heldout"
PLAIN = "plain"  # the condition with nothing added
BATCH = 8
WARMUP_SHARE = 0.1
MAX_GRAD_NORM = Recipe().train.max_grad_norm
MIN_EFFECT = Recipe().eval.min_effect  # nats per token
DOCS = Path(__file__).resolve().parents[1] / "docs" / "what-did-not-help.md"
FAILURES = ("diverged", "refused", "error")

Run = dict[str, Any]  # one finished training, as it stands in the file


# Training


def recipe_of(
    seed: int,
    rate: float,
    *,
    method: str = "full",
    batch_size: int = BATCH,
    micro_batch_size: int = BATCH,
    schedule_free: bool = False,
) -> Recipe:
    return Recipe().replace(
        data={"max_length": 256},
        model={"method": method},
        train={
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "seed": seed,
            "learning_rate": rate,
            "optimizer": "schedule_free" if schedule_free else "adamw",
        },
        eval={"batch_size": 20},
    )


def optimizer_of(steps: Steps, rate: float, total: int, *, schedule_free: bool = False):
    """Adam with bias correction, and how its rate goes (None for schedule-free)."""
    groups = steps.parameter_groups(rate)
    warmup = max(1, round(WARMUP_SHARE * total))
    if schedule_free:
        import schedulefree  # an extra of the package

        optimizer = schedulefree.AdamWScheduleFree(groups, lr=rate, warmup_steps=warmup)
        optimizer.train()
        return optimizer, None

    def factor(step: int) -> float:
        return min((step + 1) / warmup, (total - step) / (total - warmup + 1))

    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_step(
    steps: Steps, window: list[dict[str, torch.Tensor]], optimizer: Any, falling: Any
) -> None:
    """One step of the optimizer on a window of micro-batches, and of the rate's fall."""
    steps.gradient(window)
    torch.nn.utils.clip_grad_norm_(steps.model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    steps.done(optimizer)
    optimizer.zero_grad()
    if falling:
        falling.step()


def best_of(history: Sequence[Evaluation]) -> Evaluation:
    return min(history, key=lambda evaluation: evaluation.validation.nats_per_token)


@torch.no_grad()
def put_back(model: Any, weights: dict[str, torch.Tensor]) -> None:
    for name, parameter in trained_parameters(model).items():
        parameter.copy_(weights[name])


# Keeping what is done


class Finished:
    """Finished trainings in ``FOLDER/arms-SHARD.jsonl``, and the learning rates that were found."""

    def __init__(self, folder: Path, shard: int):
        self.folder = folder
        self.path = folder / f"arms-{shard}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def runs(self) -> list[Run]:
        """What all processes have finished, oldest first."""
        found = []
        for path in self.folder.glob("arms-*.jsonl"):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError:  # an empty line, or one cut off by a kill
                    continue
        return sorted(found, key=lambda run: run["time"])

    def append(self, run: Run) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(run) + "\n")

    def rate(self, name: str) -> float | None:
        """The learning rate that was found under that name."""
        path = self.folder / f"rate-{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))["chosen"] if path.exists() else None

    def search_rate(self, name: str, loss_at: Callable[[float], float | None]) -> float | None:
        """Find the rate with the lowest loss (None: it diverged), and keep it under that name."""
        chosen, trials = search_learning_rate(
            lambda rates, _: [RateTrial(rate, loss_at(rate), 0) for rate in rates],
            start=start_learning_rate("full", 1),
        )
        text = json.dumps({"trials": [t.to_json() for t in trials], "chosen": chosen})
        (self.folder / f"rate-{name}.json").write_text(text, encoding="utf-8")
        return chosen


def attempted(train: Callable[[], Run]) -> Run:
    """What a training returns, or why it could not be: one fault must not end the others."""
    try:
        return train()
    except TrainingDiverged as error:
        return {"diverged": str(error)}
    except UserError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def failures(runs: Sequence[Run]) -> list[str]:
    """Why some of these are no finished trainings, each reason once."""
    return sorted({f"{kind}: {run[kind]}" for run in runs for kind in FAILURES if kind in run})


def check_sealed(runs: Sequence[Run], folder: Path) -> None:
    """All of them must have been measured on one and the same test."""
    hashes = {run["sha256"] for run in runs if "sha256" in run}
    assert len(hashes) <= 1, f"the sealed test has changed; remove {folder}"


# Comparing


@dataclass(frozen=True)
class Comparison:
    """One condition in one place beside its control.

    ``estimates["gain"]`` is the control's loss minus the condition's in nats per token of the
    sealed test with the weights of the best epoch, ``"gain_last"`` with the last weights.
    """

    condition: str
    place: str | int  # the data set, or the number of training documents
    control: str
    rate: float
    estimates: dict[str, RatioEstimate]
    gain_by_seed: list[float]
    figures: dict[str, float]

    @property
    def gain(self) -> RatioEstimate:
        return self.estimates["gain"]

    @property
    def helps(self) -> bool:
        """Surely better, and by as much as matters."""
        return self.gain.interval.low > 0 and self.gain.value >= MIN_EFFECT

    def to_json(self, **heads: Any) -> dict[str, Any]:
        """A row of the record's table that begins with ``heads``."""
        estimates = {
            name: {"value": e.value, "low": e.interval.low, "high": e.interval.high}
            for name, e in self.estimates.items()
        }
        return {**heads, **estimates, "gain_by_seed": self.gain_by_seed, **self.figures}


def compare(
    runs: Sequence[Run],
    controls: Sequence[Run],
    place: str | int,
    figures: dict[str, float],
    **more_estimates: RatioEstimate,
) -> Comparison:
    """Trainings of one condition and of its control, both in the order of the seeds."""
    return Comparison(
        condition=runs[0]["arm"],
        place=place,
        control=controls[0]["arm"],
        rate=runs[0]["rate"],
        estimates={
            "gain": over_documents(controls, runs, "best", "nll"),
            "gain_last": over_documents(controls, runs, "last", "nll"),
            **more_estimates,
        },
        gain_by_seed=[
            losses_in(control, "best").nats_per_token - losses_in(run, "best").nats_per_token
            for run, control in zip(runs, controls, strict=True)
        ],
        figures=figures,
    )


def over_documents(
    runs: Sequence[Run], controls: Sequence[Run], which: str, name: str
) -> RatioEstimate:
    """Mean over seeds of each document's difference, per token, with an interval over groups."""
    first, second = (
        np.mean([run[which][name] for run in several], axis=0) for several in (runs, controls)
    )
    place = runs[0][which]
    return ratio_estimate(first - second, place["tokens"], place["groups"], signed=True)


def losses_in(run: Run, which: str) -> DocumentLosses:
    """Losses on the sealed test with the ``best`` or the ``last`` weights."""
    found = run[which]
    nll, tokens = np.array(found["nll"]), np.array(found["tokens"])
    return DocumentLosses(nll, tokens, np.ones_like(tokens), np.array(found["groups"]))


# Telling


def gain_figures(row: Comparison) -> dict[str, float]:
    """Both gains of a condition, as figures of the record."""
    figures = {}
    for key in ("gain", "gain_last"):
        estimate, name = row.estimates[key], f"{key}_{row.condition}_{row.place}"
        figures[name] = estimate.value
        figures[f"{name}_low"] = estimate.interval.low
        figures[f"{name}_high"] = estimate.interval.high
    return figures


def plain_figures(row: Comparison) -> dict[str, float]:
    return {f"plain_{key}_{row.place}": value for key, value in row.figures.items()}


def by_mean_gain(compared: Sequence[Comparison]) -> dict[str, dict[str | int, Comparison]]:
    """Each condition's comparisons by their place; plain first, then by the mean gain."""
    found: dict[str, dict[str | int, Comparison]] = {}
    for row in compared:
        found.setdefault(row.condition, {})[row.place] = row

    def order(name: str) -> tuple[bool, float]:
        return name != PLAIN, -mean(row.gain.value for row in found[name].values())

    return {name: found[name] for name in sorted(found, key=order)}


def helps_nowhere(rows: Mapping[str | int, Comparison]) -> bool:
    return not any(row.helps for row in rows.values())


def with_interval(estimate: RatioEstimate | None) -> str:
    """A cell of a table; empty where nothing was measured."""
    if estimate is None:
        return ""
    interval = estimate.interval
    return f"{estimate.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def spread_over_seeds(compared: Sequence[Comparison]) -> float:
    """Median standard deviation of a condition's gain over its seeds."""
    several = [r for r in compared if r.condition != PLAIN and len(r.gain_by_seed) > 1]
    return median([stdev(row.gain_by_seed) for row in several] or [math.nan])


def write_section(marks: tuple[str, str], lines: Sequence[str]) -> None:
    """Put the lines between the marks in the page of what did not help."""
    text = DOCS.read_text(encoding="utf-8")
    section = "\n".join([marks[0], *lines, marks[1]])
    before, found, rest = text.partition(marks[0])
    after = rest.partition(marks[1])[2] if found else "\n"
    DOCS.write_text(f"{before.rstrip()}\n\n{section}{after}", encoding="utf-8")
