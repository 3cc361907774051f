"""What ``heldout plan advise`` found, typed; everything on its page and in its JSON is here."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from heldout.core.results.learning_curve import LearningCurve
from heldout.core.shown import Shown

SCHEMA = "heldout.advice/2"
Doubled = Literal["data", "parameters", "epochs"]
Basis = Literal["own runs", "published, not yours", "arithmetic", "unknown"]


@dataclass(frozen=True)
class Guess:
    """An axis on which a training lies outside all runs behind the law, ``factor`` times."""

    axis: str
    value: float
    low: float
    high: float
    factor: float
    words: str


@dataclass(frozen=True)
class PredictedTraining:
    """One training with the loss that the law predicts; the interval holds one new run.

    ``low`` and ``high`` are None where nothing tells them. ``guesses`` names what lies outside
    the runs: where there are any, the loss is a guess.
    """

    N: float
    D: float
    U: float  # unique tokens seen
    epochs: float
    flops: float
    loss: float
    low: float | None
    high: float | None
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class Doubling:
    """Twice of one thing, all else equal: new loss minus that of the plan; None if unknown."""

    what: Doubled
    training: PredictedTraining | None
    change: float | None
    low: float | None
    high: float | None
    sentence: str


@dataclass(frozen=True)
class Serving:
    """The cheapest training of the same loss when ``tokens`` are to be served, and its cost."""

    tokens: float
    training: PredictedTraining
    training_flops: float
    serving_flops: float
    saved_share: float  # of the plan's own training and serving
    sentence: str


@dataclass(frozen=True)
class AdvisedSetting:
    """One thing to set; ``value`` is None where nothing tells it, and the sentence says why."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    basis: Basis
    sentence: str


@dataclass(frozen=True)
class LawUsed:
    """The law behind the numbers, and why this one."""

    name: str
    formula: str
    parameters: dict[str, float]
    basis: Basis
    source: str
    num_runs: int
    reason: str
    most_epochs: float
    why_most_epochs: str


@dataclass(frozen=True)
class Fact:
    """What was measured of a model or its data; None where that could not be.

    ``words`` says it, and what belongs to it; empty where another fact says it too.
    """

    name: str
    value: float | str | None
    words: str = ""


@dataclass(frozen=True)
class RecipeChoice:
    """One thing to do in fine-tuning, why, and what would change it.

    ``settings`` go with the recipe; ``tries`` are worth a trial, as they gained alone; ``cleans``:
    a clean copy is made before. The reason rests on ``records`` of benchmarks/results, or a
    ``source``.
    """

    about: str
    says: str
    recipe: str
    settings: tuple[str, ...]
    tries: tuple[str, ...]
    cleans: bool
    reason: str
    records: tuple[str, ...]
    source: str
    changes: str

    @property
    def rests_on(self) -> tuple[str, str]:
        """``record`` with their names, or ``source`` with what it is."""
        return ("record", ", ".join(self.records)) if self.records else ("source", self.source)


@dataclass(frozen=True)
class RecipeAdvice:
    """A recipe for fine-tuning with its settings, the facts it follows from, and its reasons.

    ``not_known``: what no record tells, in one sentence. ``commands`` do what is advised.
    """

    goal: str
    recipe: str
    settings: tuple[str, ...]
    facts: tuple[Fact, ...]
    choices: tuple[RecipeChoice, ...]
    not_known: str
    commands: tuple[str, ...] = ()

    def choice(self, about: str) -> RecipeChoice:
        """The choice about that; KeyError where there is none."""
        return {each.about: each for each in self.choices}[about]

    @property
    def cleans(self) -> bool:
        return any(choice.cleans for choice in self.choices)


@dataclass(frozen=True)
class Advice(Shown):
    """Best training, settings, what twice of each would bring, and what nobody knows.

    ``plan`` is the best training of the size that was asked for, or of any size; ``best_size`` is
    that of any size. Both are None where no law applies. ``other`` is the plan by another
    published law. ``fine_tuning`` is the recipe for a pretrained model on given data, else None.
    """

    is_pretrained: bool
    parameters: float | None
    counted: str
    unique_tokens: float | None
    flops: float | None
    loss_unit: str
    law: LawUsed | None
    plan: PredictedTraining | None
    best_size: PredictedTraining | None
    other: PredictedTraining | None
    settings: tuple[AdvisedSetting, ...]
    doublings: tuple[Doubling, ...]
    serving: Serving | None
    learning_curve: LearningCurve | None
    notes: tuple[str, ...]
    fine_tuning: RecipeAdvice | None = None
    report: str | None = None

    def table_rows(self) -> Iterable[Any]:
        """The advised settings; of a fine-tuning its choices with their reasons."""
        if self.fine_tuning is None:
            return self.settings
        return [
            {"about": choice.about, "says": choice.says, "reason": choice.reason}
            for choice in self.fine_tuning.choices
        ]

    def setting(self, name: str) -> AdvisedSetting:
        """The setting of that name; KeyError where there is none."""
        return {each.name: each for each in self.settings}[name]

    def to_json(self) -> dict[str, Any]:
        """The object of ``heldout.advice/2``."""
        curve = self.learning_curve.to_json() if self.learning_curve else None
        return {"schema": SCHEMA, **asdict(self), "learning_curve": curve}
