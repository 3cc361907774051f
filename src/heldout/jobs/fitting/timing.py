"""What a step, an evaluation and a reading take on this machine: a few of each, on the run's rows.

Costs some seconds, and more for a model whose single step takes more.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision, Regularizer
from heldout.core.row import Row
from heldout.jobs.evidence.model_on_part import read_part, writing_options
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.dry_run import Ready
from heldout.jobs.kit.parts import Parts
from heldout.jobs.kit.places import threads_of
from heldout.jobs.kit.prepare import regularizers_of
from heldout.lm.characters import token_size
from heldout.lm.load import LoadedModel
from heldout.lm.measuring.generations import generations
from heldout.training.loop import Training, train

# Steps of each kind are timed until so many are done or so long has passed.
_MOST_STEPS, _ENOUGH_SECONDS = 12, 1.5
_NEW_TOKENS = (1, 7)  # two lengths of what is written, for what a token takes
_ROWS = 16  # read at once


@dataclass(frozen=True)
class Speeds:
    """Seconds: of a step, of measuring a character's loss, of all that a pass tells of one ..."""

    load: float  # of a model
    start: float  # of a training, before its first step
    step: float  # of the recipe's training
    plain_step: float  # without regularizers, as the control's
    loss: float  # a character
    reading: float  # a character
    prompts: float  # of reading what a model is to continue for the sealed test
    token: float  # one more of all these continuations


def measured_speeds(ready: Ready, parts: Parts, recipe: Recipe) -> Speeds:
    """With the threads of one training; the model is not as it was afterwards."""
    loaded = ready.loaded
    rows = parts.validation or parts.train
    with threads_of(ready.places):
        start, step = _steps(ready, recipe, regularizers_of(recipe))
        plain = step
        if recipe.regularizers:
            _, plain = _steps(ready, recipe, [])
        size = token_size(loaded.tokenizer, rows[:_ROWS])
        loss = _a_character(rows, lambda some: losses_of(*_of(loaded), some, recipe))
        reading = _a_character(rows, lambda some: read_part(loaded, some, recipe, size))
        options = writing_options(loaded, recipe, size)

        def write(num: int) -> float:
            with_length = {**options, "new_tokens": num}
            return _seconds(lambda: generations(*_of(loaded), rows, **with_length))

        few, more = map(write, _NEW_TOKENS)
    token = max(0.0, more - few) / (_NEW_TOKENS[1] - _NEW_TOKENS[0])
    return Speeds(ready.load_seconds, start, step, plain, loss, reading, few, token)


def _of(loaded: LoadedModel) -> tuple[Any, Any]:
    return loaded.model, loaded.tokenizer


def _steps(
    ready: Ready, recipe: Recipe, regularizers: Sequence[Regularizer]
) -> tuple[float, float]:
    """Seconds before the second step, less one, and of a step after the first."""
    times = _StepTimes()

    def skip(*_: float) -> tuple[Decision, dict[str, float]]:
        return Continue(), {}

    quiet = recipe.replace(train={"report_to": ()})
    with tempfile.TemporaryDirectory(prefix="heldout-timing-") as folder:
        training = Training(
            ready.loaded.model,
            ready.windows,
            replace(quiet, regularizers=recipe.regularizers if regularizers else {}),
            regularizers,
            1e-6,
            ready.schedule,
            Path(folder),
        )
        began = time.monotonic()
        train(
            training,
            on_evaluate=skip,
            checkpoints=False,
            should_stop=lambda: times.are_enough,
            progress=times,
        )
    ends = times.ends
    step = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else ends[0] - began
    return max(0.0, ends[0] - began - step), step


class _StepTimes(Progress):
    """When each step has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def advance(self, num: int = 1, text: str = "") -> None:
        _finish()
        self.ends.append(time.monotonic())

    @property
    def are_enough(self) -> bool:
        spent = self.ends[-1] - self.ends[0]
        return len(self.ends) > _MOST_STEPS or (len(self.ends) > 1 and spent > _ENOUGH_SECONDS)


def _a_character(rows: Sequence[Row], read: Callable[[list[Row]], Any]) -> float:
    """Of reading rows, from batches until it has taken long enough; the first is read twice."""
    read(list(rows[:_ROWS]))
    characters, spent = 0, 0.0
    for first in range(0, len(rows), _ROWS):
        some = list(rows[first : first + _ROWS])
        spent += _seconds(lambda: read(some))  # noqa: B023
        characters += num_characters(some)
        if spent > _ENOUGH_SECONDS / 3:
            break
    return spent / max(1, characters)


def num_characters(rows: Sequence[Row]) -> int:
    return sum(len(row.text) for row in rows)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    _finish()
    return time.monotonic() - began


def _finish() -> None:
    """Wait for what an accelerator has yet to do."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
