"""Tasks of the lm-evaluation-harness, run by the harness itself on a model that is loaded already.

The harness is optional; its prompts, choices and metrics are its own, so that the figures are those
that others report. What is added is the score of every document, so that two models can be compared
document by document.
"""

# D documents

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from heldout.core.errors import UserError
from heldout.core.harness import HarnessScores
from heldout.lm.load import LoadedModel


class Harness:
    """The harness with its named tasks found, before any model runs them.

    ``folder`` holds task files of the user's own, as ``lm_eval --include_path`` takes them. Raises
    UserError where the harness is not installed or does not know a task.
    """

    def __init__(self, tasks: Sequence[str], folder: str = ""):
        if find_spec("lm_eval") is None:
            raise UserError(
                "--tasks runs tasks of the lm-evaluation-harness, which is not installed: run "
                "`pip install lm-eval`, or leave --tasks out."
            )
        with _quiet():
            from lm_eval.tasks import TaskManager

            # To go through all tasks of the harness takes long; the user's own may be enough.
            self.manager = TaskManager(include_path=folder or None, include_defaults=not folder)
            if self._unknown(tasks) and folder:
                self.manager = TaskManager(include_path=folder)
        self.tasks = list(tasks)
        if unknown := self._unknown(tasks):
            raise UserError(
                f"--tasks {unknown[0]}: the lm-evaluation-harness knows no such task; "
                "`lm-eval ls tasks` lists them, and --include-path names a folder of your own."
            )

    def _unknown(self, tasks: Sequence[str]) -> list[str]:
        return [task for task in tasks if task not in self.manager.all_tasks]

    def scores(self, loaded: LoadedModel, *, batch_size: int) -> dict[str, HarnessScores]:
        """By task, or by the parts of a task that has parts: each document's main metric.

        That is the first metric the task lists that is a number for each document; tasks without
        one (perplexity over words) are left out. Cost: what the tasks ask for. Raises UserError
        where the data of a task cannot be had.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with _quiet():
            model = HFLM(
                pretrained=loaded.model,
                tokenizer=loaded.tokenizer,
                batch_size=batch_size,
                device=str(next(loaded.model.parameters()).device),
                dtype="float32",
            )
            try:
                found: Any = simple_evaluate(
                    model,
                    tasks=self.tasks,
                    task_manager=self.manager,
                    bootstrap_iters=0,
                )
            except (OSError, ValueError, KeyError, ImportError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
                raise UserError(
                    f"--tasks {','.join(self.tasks)}: the lm-evaluation-harness could not run "
                    f"them ({reason}): is their data to be had from here?"
                ) from None
        return {
            name: scores
            for name, samples in found["samples"].items()
            if (scores := main_scores(samples, found["results"][name])) is not None
        }


def main_scores(samples: Sequence[dict[str, Any]], results: dict[str, Any]) -> HarnessScores | None:
    """Of the first filter and metric that give one number for each document, in their order."""
    if not samples:
        return None
    first = samples[0]
    for metric in first["metrics"]:
        if not isinstance(first.get(metric), int | float):
            continue
        kept = sorted(
            (each for each in samples if each["filter"] == first["filter"]),
            key=lambda each: each["doc_id"],
        )
        error = results.get(f"{metric}_stderr,{first['filter']}")
        return HarnessScores(
            metric,
            np.array([float(each[metric]) for each in kept]),
            np.array([str(each["doc_id"]) for each in kept]),
            float(error) if isinstance(error, int | float) else None,
        )
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """No chatter of the harness, and its random seeds leave no trace."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logging.disable(disabled)
        if before is None:
            os.environ.pop("TQDM_DISABLE")
        else:
            os.environ["TQDM_DISABLE"] = before
