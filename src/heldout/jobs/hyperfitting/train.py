"""Train on a small sample until its loss is near zero, and keep the checkpoint that writes best.

Training stops on the *training* loss. What is kept is chosen among the last checkpoints by the text
that they write on validation contexts: near to the range of human text, and not repetitive. Beside
it the checkpoint of the lowest validation loss is kept, the control that early stopping would give.
"""

# W windows, T tokens

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.human_band import HumanBand
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Continue, Decision, Stop
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.hyperfitting.texts import Contexts, Measures, decoded, write
from heldout.jobs.kit.checkpoints import save_model
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.prepare import load_prepared
from heldout.jobs.kit.resumable import MAIN, train_or_resume
from heldout.lm.dropout_places import turn_off_dropout
from heldout.lm.measuring.sharpness import sharpness
from heldout.lm.tokenize import Window
from heldout.training.keeper import recover, replace_folder
from heldout.training.loop import Outcome, Schedule, Training
from heldout.training.update_floor import check_update_floor
from heldout.training.windows import WindowDataset

EARLY_STOPPED = "early_stopped"
CANDIDATES = "candidates"


class WindowSample(WindowDataset):
    """Windows drawn from those of all rows; ``left`` are as many others, never trained on."""

    def __init__(self, rows: Sequence[Row], tokenizer: Any, recipe: Recipe):
        """Whole windows of ``data.max_length`` first, in an order that ``train.seed`` decides."""
        super().__init__(rows, tokenizer, recipe.data.max_length)
        lengths = np.diff(self.offsets)
        order = np.random.default_rng(recipe.train.seed).permutation(len(lengths))
        order = order[np.argsort(lengths[order] < recipe.data.max_length, kind="stable")]
        num = recipe.hyperfit.num_samples or len(order)
        self.num_available = len(order)
        self.left = [self.ids_of(place) for place in order[num : 2 * num]]
        self._take(order[:num])

    def _take(self, drawn: np.ndarray) -> None:
        """Keep these windows, in this order."""
        spans = [slice(self.offsets[place], self.offsets[place + 1]) for place in drawn]
        self.ids = np.concatenate([self.ids[span] for span in spans])
        self.scored = np.concatenate([self.scored[span] for span in spans])
        self.offsets = np.cumsum([0, *(span.stop - span.start for span in spans)])
        self.row_index, self.source_index = self.row_index[drawn], self.source_index[drawn]
        self.num_tokens = int(self.scored.sum())

    def ids_of(self, place: int) -> list[int]:
        """Token ids of one window: what the model learns by heart."""
        return self.ids[self.offsets[place] : self.offsets[place + 1]].tolist()

    def windows(self, most: int) -> list[Window]:
        """The first of them, as they are scored."""
        items = (self[position] for position in range(min(most, len(self))))
        return [Window(item["input_ids"].tolist(), item["labels"].tolist()) for item in items]


@dataclass(frozen=True)
class Checkpoint:
    """One line of ``history.jsonl``; losses in nats/token, the rest of greedy validation text."""

    step: int
    epoch: float
    train_nll: float
    validation_nll: float
    training_loss: float | None
    learning_rate: float
    ttr: float
    repetition: float  # share of repeated 4-grams
    distance: float  # to the human band
    entropy: float
    is_lowest: bool  # of the validation losses so far


class _Watch:
    """Measures, records and keeps; decides on the training loss alone.

    State lies in files, so a resumed run goes on with the same candidates.
    """

    def __init__(
        self,
        context: RunContext,
        model: Any,
        tokenizer: Any,
        sample: WindowSample,
        contexts: Contexts,
    ):
        self.run = context.run
        self.recipe = context.recipe
        self.progress = context.progress
        self.model = model
        self.tokenizer = tokenizer
        self.train_windows = sample.windows(self.recipe.eval.max_train_rows)
        self.contexts = contexts
        self.human = Measures.of(contexts.references, decoded(tokenizer, contexts.references))
        self.band = HumanBand.of(self.human.compared, self.human.repetition)
        self.history: list[Checkpoint] = []

    @property
    def last_measured(self) -> int | None:
        """Step of the newest evaluation."""
        return self.history[-1].step if self.history else None

    def restore(self, step: int) -> None:
        """Go back to the state right after the evaluation at ``step``."""
        self.run.truncate_history(step)
        self.history = [Checkpoint(**entry) for entry in self.run.history()]
        recover(self.run.path(EARLY_STOPPED))

    def evaluate(
        self, step: int, epoch: float, training_loss: float | None, learning_rate: float
    ) -> tuple[Decision, dict[str, float]]:
        batch = self.recipe.eval.batch_size
        pad_id = self.tokenizer.pad_token_id
        train_nll = sharpness(
            self.model, self.train_windows, pad_id, batch_size=batch
        ).nats_per_token
        heldout = sharpness(self.model, self.contexts.windows, pad_id, batch_size=batch)
        texts_ids = write(self.model, self.tokenizer, self.contexts, self.recipe)
        written = Measures.of(texts_ids, decoded(self.tokenizer, texts_ids))
        nll = heldout.nats_per_token
        is_lowest = all(nll < each.validation_nll for each in self.history)
        found = Checkpoint(
            step,
            epoch,
            train_nll,
            nll,
            training_loss,
            learning_rate,
            ttr=float(written.ttr.mean()),
            repetition=float(written.repetition.mean()),
            distance=float(self.band.distance(written.compared).mean()),
            entropy=float(heldout.entropy_N.mean()),
            is_lowest=is_lowest,
        )
        if is_lowest:
            replace_folder(self.run.path(EARLY_STOPPED), self._save)
        replace_folder(self._candidate(step), self._save)
        self.history.append(found)
        for old in self.history[: -self.recipe.hyperfit.keep_last]:
            shutil.rmtree(self._candidate(old.step), ignore_errors=True)
        self.run.append_history(vars(found))
        self.progress.advance(0, f"train {train_nll:.3f}, held-out {nll:.3f}, TTR {found.ttr:.2f}")
        return self.decide(), {name: getattr(found, name) for name in _TRACKED}

    def decide(self) -> Decision:
        target = self.recipe.hyperfit.target_loss
        if self.history and self.history[-1].train_nll <= target:
            return Stop(f"the training loss has reached {target:g} nats/token")
        return Continue()

    @property
    def kept(self) -> str:
        """Where the checkpoint of the lowest validation loss lies, in a sentence."""
        lowest = [each.step for each in self.history if each.is_lowest]
        if not lowest:
            return ""
        folder = self.run.path(EARLY_STOPPED)
        return f"{folder} holds the checkpoint of the lowest held-out loss, of step {lowest[-1]}."

    def _candidate(self, step: int) -> Path:
        return self.run.path(f"{CANDIDATES}/step-{step:06d}")

    def _save(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, folder)


_TRACKED = ("train_nll", "validation_nll", "ttr", "repetition", "entropy")


def train_hyperfit(context: RunContext, contexts: Callable[[Any], Contexts]) -> Outcome:
    """Train, or go on from the newest checkpoint; ``best/`` holds what was kept at the end.

    ``contexts`` makes the validation contexts with the model's tokenizer.
    """
    run, recipe = context.run, context.recipe
    model, tokenizer = load_prepared(context.target, recipe)
    turn_off_dropout(model)
    rate = recipe.train.learning_rate
    assert rate is not None, "checked before the run"
    check_update_floor(model, rate)
    sample = WindowSample(context.texts.train, tokenizer, recipe)
    run.path(CANDIDATES).mkdir(exist_ok=True)
    watch = _Watch(context, model, tokenizer, sample, contexts(tokenizer))
    schedule = Schedule.of(len(sample), recipe)
    training = Training(model, sample, recipe, [], rate, schedule, run.path("checkpoints"))
    outcome = train_or_resume(training, watch, context, MAIN)
    if not outcome.interrupted:
        _keep(run, chosen_checkpoint(watch.history, recipe))
    return outcome


def chosen_checkpoint(history: Sequence[Checkpoint], recipe: Recipe) -> Checkpoint:
    """Among the last checkpoints the one whose greedy text is nearest to human text.

    Those that repeat more than ``hyperfit.max_repetition`` have no say while others are left;
    where all do, the least repetitive is taken.
    """
    last = [each for each in history if each.step][-recipe.hyperfit.keep_last :] or history[-1:]
    fluent = [each for each in last if each.repetition <= recipe.hyperfit.max_repetition]
    if not fluent:
        return min(last, key=lambda each: (each.repetition, -each.step))
    return min(fluent, key=lambda each: (each.distance, -each.step))


def _keep(run: Run, chosen: Checkpoint) -> None:
    candidate = run.path(f"{CANDIDATES}/step-{chosen.step:06d}")
    if candidate.is_dir():  # else a kill came after it was moved
        shutil.rmtree(run.best, ignore_errors=True)
        candidate.rename(run.best)
    run.write_json("kept.json", vars(chosen))
    shutil.rmtree(run.path(CANDIDATES), ignore_errors=True)
