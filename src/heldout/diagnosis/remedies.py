"""From causes to what to change: remedies are data (remedies.toml), with settings by trainer."""

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Formatter

from heldout.core.facts import Facts
from heldout.core.results.diagnosis import Remedy
from heldout.core.verdict import Cause
from heldout.diagnosis.features import best_epoch

RATE_FACTOR = 3.0  # a step of the search over learning rates


@dataclass(frozen=True)
class Known:
    """A remedy as it is shipped; ``gain`` in nats/token where a record of it exists."""

    remedy: Remedy
    gain: float


def remedies_for(causes: Iterable[Cause], facts: Facts) -> list[Remedy]:
    """For each cause in order, its remedies, those with the largest measured gain first.

    Settings hold the figures of the run, such as its best epoch; a setting whose figure is not
    known is left out.
    """
    figures = _figures(facts)
    found = []
    for cause in causes:
        known = [one for one in read_remedies() if one.remedy.cause == cause.name]
        for one in sorted(known, key=lambda one: -one.gain):
            remedy = one.remedy
            settings = {
                trainer: template.format(**figures)
                for trainer, template in remedy.settings.items()
                if _fields(template) <= figures.keys()
            }
            found.append(Remedy(remedy.name, remedy.cause, remedy.why, settings, remedy.effect))
    return found


@cache
def read_remedies() -> tuple[Known, ...]:
    """All remedies in the order of the file."""
    source = resources.files("heldout") / "diagnosis" / "remedies.toml"
    return tuple(
        Known(
            Remedy(entry["name"], entry["cause"], entry["why"], entry["settings"], entry["effect"]),
            entry["gain"],
        )
        for entry in tomllib.loads(source.read_text(encoding="utf-8"))["remedy"]
    )


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def _figures(facts: Facts) -> dict[str, str]:
    """What settings may refer to, as far as the run tells."""
    found = {}
    lowest = best_epoch({}, facts)
    if lowest is None:  # somewhere before the first evaluation: early stopping finds it
        lowest = next((point.epoch for point in facts.history if point.epoch > 0), None)
    if lowest:
        found["best_epochs"] = f"{lowest:.3g}"
    if facts.epochs:
        found["more_epochs"] = f"{max(2, math.ceil(2 * facts.epochs))}"
    rate = facts.learning_rate
    if rate:
        found["lower_rate"] = f"{facts.best_learning_rate or rate / RATE_FACTOR:.2g}"
        found["higher_rate"] = f"{facts.best_learning_rate or rate * RATE_FACTOR:.2g}"
    return found
