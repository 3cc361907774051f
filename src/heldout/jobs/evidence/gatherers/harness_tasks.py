"""Scores of tasks of the lm-evaluation-harness, document by document."""

from dataclasses import dataclass
from typing import Self

from heldout.core.probe import Evidence
from heldout.jobs.evidence.gatherer import Asked, Gatherer, Given
from heldout.lm.measuring.harness import Harness


@dataclass(frozen=True)
class HarnessTasksGatherer(Gatherer):
    """Adds ``HarnessScores`` under the model and the task."""

    harness: Harness

    probes = ("harness_tasks",)
    stage = "tasks"

    @classmethod
    def for_asked(cls, asked: Asked) -> Self | None:
        return cls(Harness(asked.tasks, asked.include_path)) if asked.tasks else None

    def num_steps(self, given: Given) -> int:
        return len(given.models)

    def of_model(self, name: str, evidence: Evidence, given: Given) -> Evidence:
        found = self.harness.scores(given.models[name], batch_size=given.recipe.eval.batch_size)
        for task, scores in found.items():
            evidence = evidence.adding(scores, name, task)
        given.progress.advance(1, name)
        return evidence
