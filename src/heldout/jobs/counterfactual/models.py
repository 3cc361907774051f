"""The models of a run, trained on complementary halves of its rows, and what they say of all."""

# D rows, P pairs of models

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heldout.core.errors import Interrupted
from heldout.core.files import written_whole
from heldout.core.interrupt import StopRequest, stop_on_interrupt
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.counterfactual.memorized_rows import PairStatistics
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.target import Target
from heldout.lm.measuring.pass_statistics import pass_statistics
from heldout.training.steps import evaluation_weights

FOLDER = "counterfactual"
_Sums = dict[str, np.ndarray]  # of each row under one model: correct tokens, nats, tokens


def halves(num_train: int, num_heldout: int, seed: int, pair: int) -> np.ndarray:
    """(2, D) bool: which rows are in either half of a pair; training rows first, held-out after."""
    rng = np.random.default_rng([seed, pair])
    first_D = np.concatenate([rng.permutation(num) < num / 2 for num in (num_train, num_heldout)])
    return np.stack([first_D, ~first_D])


@dataclass(frozen=True)
class HalfModels:
    """The models of a run, trained as far as they are not there, and what they say of all rows."""

    run: Run
    target: Target
    train: list[Row]
    heldout: list[Row]
    epochs: float
    learning_rate: float
    progress: Progress

    def read(self, num_models: int) -> tuple[PairStatistics, PairStatistics | None]:
        """What ``num_models`` say of training rows and of held-out rows, if there are any."""
        with (
            stop_on_interrupt() as stop,
            self.progress.stage("models", num_models + 1),
        ):
            base = self._kept("base", None, stop)
            self.progress.advance()
            pairs = []
            for pair in range(num_models // 2):
                halves_2D = halves(
                    len(self.train), len(self.heldout), self.run.recipe.data.seed, pair
                )
                models = []
                for half in (0, 1):
                    name = f"pair-{pair:03d}-{'ab'[half]}"
                    models.append(self._kept(name, (pair, halves_2D[half]), stop))
                    self.progress.advance()
                pairs.append((halves_2D[0], models))
        num = len(self.train)
        parts = [self._part(self.train, pairs, base, slice(0, num))]
        if len({row.group for row in self.heldout}) < 2:
            return parts[0], None
        return parts[0], self._part(self.heldout, pairs, base, slice(num, None))

    def _part(
        self,
        rows: list[Row],
        pairs: Sequence[tuple[np.ndarray, list[_Sums]]],
        base: _Sums,
        part: slice,
    ) -> PairStatistics:
        """Of the rows ``part``; pairs hold the first half's rows and both models' sums."""
        is_first_PD = np.stack([first_D[part] for first_D, _ in pairs])
        sides = {}
        for name in ("correct", "nats"):
            both_P2D = np.stack([np.stack([model[name][part] for model in ms]) for _, ms in pairs])
            swapped_P2D = both_P2D[:, ::-1]
            with_first_P2D = np.where(is_first_PD[:, None], both_P2D, swapped_P2D)
            sides[name] = with_first_P2D / np.maximum(base["tokens"][part], 1)
        tokens_D = base["tokens"][part]
        return PairStatistics(
            rows,
            tokens_D,
            sides["correct"],
            sides["nats"],
            base["nats"][part] / np.maximum(tokens_D, 1),
            is_first_PD,
        )

    def _kept(self, name: str, half: tuple[int, np.ndarray] | None, stop: StopRequest) -> _Sums:
        """Sums over each row's tokens under one model, trained now unless it was before."""
        path = self.run.path(f"{FOLDER}/{name}.npz")
        if not path.exists():
            if stop:
                raise Interrupted(_stopped(self.run))
            correct_D, nats_D, tokens_D = self._measure(name, half, stop)
            with written_whole(path) as partial:
                np.savez(partial, correct=correct_D, nats=nats_D, tokens=tokens_D)
            shutil.rmtree(self.run.path(f"{FOLDER}/checkpoints-{name}"), ignore_errors=True)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def _measure(
        self, name: str, half: tuple[int, np.ndarray] | None, stop: StopRequest
    ) -> tuple[np.ndarray, ...]:
        recipe = self.run.recipe
        if half is None:
            loaded = self.target.load(recipe)
            return self._sums(loaded.model, loaded.tokenizer, recipe)
        pair, chosen_D = half
        recipe = recipe.replace(
            train={"seed": (recipe.train.seed + 1 + pair) % 2**32, "report_to": ()}
        )
        rows = [r for r, in_half in zip(self.train, chosen_D, strict=False) if in_half]
        condition = Condition(
            RunContext(self.run, self.target, recipe, Texts(rows, [], []), self.progress, stop),
            self.learning_rate,
            self.epochs,
            folder=f"{FOLDER}/checkpoints-{name}",
            keep_best=False,
        )
        trained = condition.train_unwatched(name.replace("-", " "))
        if trained.outcome.interrupted:
            raise Interrupted(_stopped(self.run))
        with evaluation_weights(trained.model, trained.regularizers):
            return self._sums(trained.model, trained.tokenizer, recipe)

    def _sums(self, model: Any, tokenizer: Any, recipe: Recipe) -> tuple[np.ndarray, ...]:
        read = pass_statistics(
            model,
            [*self.train, *self.heldout],
            tokenizer,
            max_length=recipe.data.max_length,
            batch_size=recipe.eval.batch_size,
        )
        losses = read.losses
        return read.bin_correct_DC.sum(axis=1), losses.nll_nats_D, losses.num_tokens_D


def _stopped(run: Run) -> str:
    return f"Stopped. Finished models are kept: `heldout counterfactual {run.folder}` goes on."
