"""Points that a sampler of Optuna chooses from what was tried so far, by ask and tell.

Nothing of Optuna's is kept: each round builds its study anew from the trials, and each point has a
seed of its own, so that a search that was killed goes on to the same points.
"""

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.core.search_space import USED, Between, Point, Range, Value, point_key
from heldout.search.sampler import Space
from heldout.search.tried import Tried

Kind = Literal["tpe", "gp", "random"]
MOST_REPEATS = 30  # a sampler that offers known points so often has seen what there is
_FIRST = 6  # points drawn at random before a model of the losses is trusted, or a third of all


def refuse_absent(kind: str) -> None:
    """Raise UserError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError(
            f"search.sampler={kind} needs Optuna: pip install 'heldout[search]', or use "
            "search.sampler=coordinate, which searches lists of numbers without it."
        )


@dataclass(frozen=True)
class OptunaSampler:
    """``tpe``: tree-structured Parzen estimators; ``gp``: a Gaussian process; ``random``.

    The parameters of a technique are drawn where it is used. Of several points at once each is
    chosen as if those before it had come out as the worst so far.
    """

    kind: Kind
    space: Space
    max_trials: int
    at_once: int = 1
    seed: int = 0

    def propose(self, tried: Sequence[Tried]) -> list[Point]:
        import optuna

        known = {point_key(each.point) for each in tried}
        points: list[Point] = []
        with _quiet(optuna):
            study = optuna.create_study(direction="minimize")
            highest = max((each.loss for each in tried if each.losses is not None), default=None)
            for each in tried:
                if each.seed == 0:
                    self._tell(study, each, highest)
            if not known:
                points.append(dict(self.space.start))
                known.add(point_key(self.space.start))
            while len(points) < self.at_once:
                point = self._new(study, known, highest)
                if point is None:
                    break
                points.append(point)
                known.add(point_key(point))
        return points

    def _new(self, study: Any, known: set[tuple], highest: float | None) -> Point | None:
        from optuna.trial import TrialState

        for attempt in range(MOST_REPEATS):
            study.sampler = self._sampler(len(known), attempt)
            trial = study.ask()
            point = self._point(trial)
            if point_key(point) not in known:
                if highest is not None:
                    study.tell(trial, highest)
                else:
                    study.tell(trial, state=TrialState.FAIL)
                return point
            study.tell(trial, state=TrialState.FAIL)
        return None

    def _sampler(self, number: int, attempt: int) -> Any:
        from optuna.samplers import GPSampler, RandomSampler, TPESampler

        seed = (self.seed * 1_000_003 + number * 1009 + attempt) % 2**32
        first = max(2, min(_FIRST, self.max_trials // 3))
        if self.kind == "random" or attempt > MOST_REPEATS // 2:
            return RandomSampler(seed=seed)
        if self.kind == "gp":
            return GPSampler(seed=seed, n_startup_trials=first)
        return TPESampler(seed=seed, n_startup_trials=first, multivariate=True, group=True)

    def _point(self, trial: Any) -> Point:
        point: Point = {}
        for key, choices in self._in_order():
            technique = f"{key.rpartition('.')[0]}{USED}"
            if key != technique and point.get(technique) is False:
                continue
            suggested = trial._suggest(key, self._distribution(key, choices))
            point[key] = self._value(choices, suggested)
        return {key: point[key] for key in self.space.ranges if key in point}

    def _in_order(self) -> list[tuple[str, Range]]:
        """Whether a technique is used comes before its parameters."""
        return sorted(self.space.ranges.items(), key=lambda item: not item[0].endswith(USED))

    def _distribution(self, key: str, choices: Range) -> Any:
        from optuna import distributions

        if isinstance(choices, Between):
            if key in self.space.whole:
                low, high = int(choices.low), int(choices.high)
                return distributions.IntDistribution(low, high, log=choices.log)
            return distributions.FloatDistribution(choices.low, choices.high, log=choices.log)
        if _are_ordered(choices):
            return distributions.IntDistribution(0, len(choices) - 1)
        return distributions.CategoricalDistribution(choices)

    def _value(self, choices: Range, suggested: Any) -> Value:
        if isinstance(choices, Between):
            rounded = float(f"{suggested:.3g}")
            return min(max(rounded, choices.low), choices.high)
        return choices[suggested] if _are_ordered(choices) else suggested

    def _tell(self, study: Any, tried: Tried, highest: float | None) -> None:
        from optuna.trial import TrialState, create_trial

        params, distributions = {}, {}
        for key, value in tried.point.items():
            choices = self.space.ranges[key]
            ordered = not isinstance(choices, Between) and _are_ordered(choices)
            params[key] = choices.index(value) if ordered else value  # type: ignore[union-attr]
            if key in self.space.whole and isinstance(choices, Between):
                params[key] = int(value)
            distributions[key] = self._distribution(key, choices)
        # Diverged is as bad as the worst that did not; a loss of a stopped trial is near its end.
        loss = highest if tried.losses is None else tried.loss
        state = TrialState.FAIL if loss is None else TrialState.COMPLETE
        study.add_trial(
            create_trial(state=state, value=loss, params=params, distributions=distributions)
        )


def _are_ordered(choices: tuple[Value, ...]) -> bool:
    return not isinstance(choices[0], bool | str)


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's log of each trial and its warnings of what is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
