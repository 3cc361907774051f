"""From facts of a model and its data to a recipe: rules are data (recipe_advice.toml)."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from heldout.core.errors import UserError
from heldout.core.results.advice import Fact, RecipeAdvice, RecipeChoice

GOALS = ("loss", "memorization", "forgetting", "calibration")
Values = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Condition:
    """A fact on one side of a bound, or one of some words."""

    fact: str
    above: float | None = None
    below: float | None = None
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = (self.above is not None, self.below is not None, bool(self.words))
        assert sum(given) == 1, f"{self.fact}: one of above, below and words"

    def holds(self, values: Values) -> bool:
        """Never of a fact that was not measured."""
        value = values.get(self.fact)
        if value is None:
            return False
        if self.words:
            return value in self.words
        assert not isinstance(value, str), f"{self.fact} is a word"
        if self.above is not None:
            return value >= self.above
        assert self.below is not None
        return value < self.below


@dataclass(frozen=True)
class Rule:
    """What is chosen where all conditions hold; the file's header names the fields."""

    about: str
    when: tuple[Condition, ...]
    says: str
    reason: str
    changes: str
    goals: tuple[str, ...] = ()
    recipe: str = ""
    trains: str = ""  # with the recipe: all weights (full) or an adapter
    settings: tuple[str, ...] = ()
    tries: tuple[str, ...] = ()
    cleans: bool = False
    records: tuple[str, ...] = ()
    source: str = ""

    def holds(self, values: Values, goal: str) -> bool:
        return (not self.goals or goal in self.goals) and all(
            condition.holds(values) for condition in self.when
        )

    def choice(self, values: Values) -> RecipeChoice:
        """With the facts in its sentences."""
        return RecipeChoice(
            self.about,
            self.says,
            self.recipe,
            self.settings,
            self.tries,
            self.cleans,
            self.reason.format(**values),
            self.records,
            self.source,
            self.changes.format(**values),
        )


@dataclass(frozen=True)
class RecipeRules:
    """All rules in the order of the file; ``not_known``: what no record tells, and when."""

    rules: tuple[Rule, ...]
    not_known: tuple[tuple[tuple[Condition, ...], str], ...]


@cache
def read_recipe_rules() -> RecipeRules:
    """As they are shipped."""
    source = resources.files("heldout") / "jobs" / "planning" / "recipe_advice.toml"
    table = tomllib.loads(source.read_text(encoding="utf-8"))
    return RecipeRules(
        tuple(_rule(entry) for entry in table["rule"]),
        tuple((_conditions(entry["when"]), entry["says"]) for entry in table["not_known"]),
    )


def _rule(entry: Mapping[str, Any]) -> Rule:
    return Rule(**_with_tuples({**entry, "when": _conditions(entry["when"])}))


def _conditions(entries: Iterable[Mapping[str, Any]]) -> tuple[Condition, ...]:
    return tuple(Condition(**_with_tuples(entry)) for entry in entries)


def _with_tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def check_goal(goal: str) -> None:
    """UserError for none that the rules know."""
    if goal not in GOALS:
        raise UserError(f"--goal must be one of {', '.join(GOALS)}, got {goal!r}.")


def recipe_advice(facts: Iterable[Fact], goal: str) -> RecipeAdvice:
    """The first rule about each thing whose conditions hold, in the order of the file."""
    facts = tuple(facts)
    rules = read_recipe_rules()
    values: dict[str, float | str | None] = {fact.name: fact.value for fact in facts}
    chosen: dict[str, RecipeChoice] = {}
    for rule in rules.rules:
        if rule.about not in chosen and rule.holds(values, goal):
            chosen[rule.about] = rule.choice(values)
            if rule.recipe:
                values |= {"recipe": rule.recipe, "trains": rule.trains}
                values |= _filled(values, rule.trains)
    says = next(says for when, says in rules.not_known if all(one.holds(values) for one in when))
    choices = tuple(chosen.values())
    settings = tuple(setting for choice in choices for setting in choice.settings)
    return RecipeAdvice(goal, str(values["recipe"]), settings, facts, choices, says)


def _filled(values: Values, trains: str) -> dict[str, float]:
    """How full the rows make what is trained, where that was measured."""
    share = values.get(f"{trains}_filled_share")
    if not isinstance(share, float) or not share:
        return {}
    return {"filled_share": share, "times_more_rows": 1 / share}
