"""The models of a run, trained on complementary halves of its rows, and what they say of all."""

# D rows, P pairs of models

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import Interrupted
from heldout.core.files import written_whole
from heldout.core.interrupt import StopRequest, stop_on_interrupt
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.regularizer import Weights
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.jobs.counterfactual.memorized_rows import PairStatistics
from heldout.jobs.kit.condition import Condition
from heldout.jobs.kit.context import RunContext
from heldout.jobs.kit.parts import Texts
from heldout.jobs.kit.places import ALONE, Places, threads_of
from heldout.jobs.kit.side_by_side import SideBySide, Task
from heldout.jobs.kit.target import Target
from heldout.lm.measuring.pass_statistics import pass_statistics

FOLDER = "counterfactual"
_Sums = dict[str, np.ndarray]  # of each row under one model: correct tokens, nats, tokens
_Arrays = tuple[np.ndarray, ...]  # the same, in that order


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
    places: Places = ALONE

    def read(self, num_models: int) -> tuple[PairStatistics, PairStatistics | None]:
        """What ``num_models`` say of training rows and of held-out rows, if there are any."""
        names = [(pair, half) for pair in range(num_models // 2) for half in (0, 1)]
        counted = self.progress.beside("models")
        with (
            stop_on_interrupt() as stop,
            threads_of(self.places),
            counted.stage("models", num_models + 1),
        ):
            base = self._kept("base", self._base)
            counted.advance()
            self._train(names, stop, counted)
        pairs = []
        for pair in range(num_models // 2):
            models = [self._kept(_name(pair, half)) for half in (0, 1)]
            pairs.append((self._halves(pair)[0], models))
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

    def _train(
        self, names: Sequence[tuple[int, int]], stop: StopRequest, counted: Progress
    ) -> None:
        """The models that are not there yet, side by side."""
        logs = self.run.path(f"{FOLDER}/logs")
        try:
            with SideBySide(
                self.places, self.progress, stop, logs, on_done=counted.advance
            ) as beside:
                for pair, half in names:
                    if self.run.path(f"{FOLDER}/{_name(pair, half)}.npz").exists():
                        counted.advance()
                        continue
                    arguments = {
                        "run": str(self.run.folder.resolve()),
                        "target": asdict(self.target),
                        "epochs": self.epochs,
                        "learning_rate": self.learning_rate,
                        "pair": pair,
                        "half": half,
                    }
                    beside.add(Task(_words(pair, half), train_half, arguments))
        except Interrupted:
            raise Interrupted(
                "Stopped. Finished models are kept: "
                f"`heldout counterfactual {self.run.folder}` goes on."
            ) from None

    def _halves(self, pair: int) -> np.ndarray:
        seed = self.run.recipe.data.seed
        return halves(len(self.train), len(self.heldout), seed, pair)

    def _kept(self, name: str, measure: Callable[[], _Arrays] | None = None) -> _Sums:
        """Sums over each row's tokens under one model, measured now unless they were before."""
        path = self.run.path(f"{FOLDER}/{name}.npz")
        if measure is not None and not path.exists():
            correct_D, nats_D, tokens_D = measure()
            with written_whole(path) as partial:
                np.savez(partial, correct=correct_D, nats=nats_D, tokens=tokens_D)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def _base(self) -> _Arrays:
        loaded = self.target.load(self.run.recipe)
        return self._sums(loaded.model, loaded.tokenizer, self.run.recipe)

    def train_half(self, pair: int, half: int, stop: StopRequest) -> None:
        """One model, and its sums in a file."""
        name = _name(pair, half)
        folder = f"{FOLDER}/checkpoints-{name}"

        def measure() -> _Arrays:
            recipe = self.run.recipe
            recipe = recipe.replace(
                train={"seed": (recipe.train.seed + 1 + pair) % 2**32, "report_to": ()}
            )
            chosen_D = self._halves(pair)[half]
            rows = [r for r, in_half in zip(self.train, chosen_D, strict=False) if in_half]
            texts = Texts(rows, [], [])
            condition = Condition(
                RunContext(self.run, self.target, recipe, texts, self.progress, stop),
                self.learning_rate,
                self.epochs,
                folder=folder,
                keep_best=False,
            )
            trained = condition.train_unwatched(_words(pair, half), _weights(self.run))
            if trained.outcome.interrupted:
                raise Interrupted
            with trained.holding_weights():
                return self._sums(trained.model, trained.tokenizer, recipe)

        self._kept(name, measure)
        shutil.rmtree(self.run.path(folder), ignore_errors=True)

    def _sums(self, model: Any, tokenizer: Any, recipe: Recipe) -> _Arrays:
        read = pass_statistics(
            model,
            [*self.train, *self.heldout],
            tokenizer,
            max_length=recipe.data.max_length,
            batch_size=recipe.eval.batch_size,
        )
        losses = read.losses
        return read.bin_correct_DC.sum(axis=1), losses.nll_nats_D, losses.num_tokens_D


def _weights(run: Run) -> Weights:
    """Those that the run kept; earlier versions kept the average wherever there was one."""
    found = run.read_json("result.json")
    return "raw" if found.get("best_weights", "average") == "raw" else "average"


def train_half(
    progress: Progress,
    request: StopRequest,
    *,
    run: str,
    target: dict[str, str],
    epochs: float,
    learning_rate: float,
    pair: int,
    half: int,
) -> None:
    """Train one model of a run's and leave its sums in a file."""
    of = Run(Path(run))
    train, heldout = list(of.read_rows("train")), list(of.read_rows("validation"))
    models = HalfModels(of, Target(**target), train, heldout, epochs, learning_rate, progress)
    models.train_half(pair, half, request)


def _name(pair: int, half: int) -> str:
    return f"pair-{pair:03d}-{'ab'[half]}"


def _words(pair: int, half: int) -> str:
    return _name(pair, half).replace("-", " ")
