"""The contract of a gatherer: models and texts in, evidence for probes out; one file a kind.

Ours lie in ``gatherers/``; packages of others announce theirs by an entry point ``gatherers`` in
the group ``heldout.plugins``.
"""

import importlib
from dataclasses import dataclass, field
from typing import ClassVar, Self

from heldout.core.discovery import packages_of
from heldout.core.probe import Evidence
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.jobs.evidence.kept import Kept, Keys
from heldout.jobs.evidence.texts import DiagnosedTexts
from heldout.lm.load import LoadedModel

# In this order, and within a stage by the name of the file; other stages come after these.
STAGES = ("reading", "writing", "tasks", "", "landscape")


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    probes: list[str]
    generate: bool = True
    canaries: str = ""
    lexicon: str = ""
    tasks: tuple[str, ...] = ()  # of the lm-evaluation-harness
    include_path: str = ""  # folder of such tasks


@dataclass(frozen=True)
class Given:
    """What evidence is gathered from."""

    models: dict[str, LoadedModel]  # "base", where there is a control, then "best"
    texts: DiagnosedTexts
    recipe: Recipe
    progress: Progress
    size: TokenSize = ENGLISH_TOKENS  # how much a token of the judged model holds
    kept: Kept = field(default_factory=Kept)  # what the run has measured already

    @property
    def judged(self) -> LoadedModel:
        return self.models["best"]

    @property
    def control(self) -> LoadedModel | None:
        return self.models.get("base")

    def keys(self, name: str) -> Keys | None:
        """Of what a model reads and writes, where something may be kept of it."""
        return Keys(self.models[name], self.recipe, self.size) if self.kept else None

    @property
    def parts(self) -> dict[str, list[Row]]:
        """All rows that are measured, by part."""
        parts = {"train": self.texts.train, "test": self.texts.heldout}
        return parts | {f"domain:{name}": rows for name, rows in self.texts.domains.items()}


@dataclass(frozen=True)
class Gatherer:
    """Base of all gatherers; a subclass overrides ``of_model`` or ``of_all``.

    Both take the evidence so far and return it with more: ``evidence.adding(found, *key)``.
    """

    probes: ClassVar[tuple[str, ...]] = ()  # that need it
    stage: ClassVar[str] = ""  # of the progress; "" shows none

    @classmethod
    def for_asked(cls, asked: Asked) -> Self | None:
        """A gatherer where one of its probes is asked for, else None.

        Called before any model runs: raises UserError for what cannot be gathered.
        """
        return cls() if set(cls.probes) & set(asked.probes) else None

    def num_steps(self, given: Given) -> int:
        """How often ``given.progress`` is advanced; 0 where it is not."""
        return 0

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        """Called for each of ``given.models``."""
        return evidence

    def of_all(self, evidence: Evidence, given: Given) -> Evidence:
        """Called once, when all gatherers of the stage have gone through the models."""
        return evidence


def gatherers_for(asked: Asked) -> list[Gatherer]:
    """Of all that there are, those that what is asked for needs, in the order of their work."""
    found = []
    for package, folder in packages_of("jobs.evidence.gatherers"):
        for file in sorted(folder.glob("[!_]*.py")):
            module = importlib.import_module(f"{package}.{file.stem}")
            for kind in vars(module).values():
                defined_here = isinstance(kind, type) and kind.__module__ == module.__name__
                if defined_here and issubclass(kind, Gatherer):
                    found.append(kind.for_asked(asked))
    needed = [each for each in found if each is not None]
    return sorted(needed, key=lambda each: _place(each.stage))  # stable: by name within a stage


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)
