"""Finished training runs as arrays: what every law is fitted to."""

# n runs

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from heldout.core.errors import UserError

Numbers = float | np.ndarray  # one, or an array that broadcasts with others


@dataclass(frozen=True)
class Runs:
    """N parameters, D tokens seen, U unique tokens and the held-out loss of n runs, each (n,).

    ``groups`` names what is resampled as a whole: several checkpoints of one run are one group.
    """

    N: np.ndarray
    D: np.ndarray
    U: np.ndarray
    loss: np.ndarray
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, unit in (("N", "parameters"), ("D", "tokens"), ("U", "tokens"), ("loss", "loss")):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, array)
            if array.shape != (len(self.loss),):
                raise UserError(f"Runs({name}=...) must be one number a run, got {array.shape}.")
            if not np.isfinite(array).all() or (array <= 0).any():
                raise UserError(f"Runs({name}=...) must be positive numbers of {unit}.")
        if self.groups is not None:
            object.__setattr__(self, "groups", np.asarray(self.groups))

    @classmethod
    def of(
        cls,
        N: ArrayLike,
        D: ArrayLike,
        loss: ArrayLike,
        U: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> "Runs":
        """Unique tokens default to the tokens seen: one epoch."""
        unique = D if U is None else U
        named = None if groups is None else np.asarray(groups)
        return cls(np.asarray(N), np.asarray(D), np.asarray(unique), np.asarray(loss), named)

    def __len__(self) -> int:
        return len(self.loss)

    def __getitem__(self, which: np.ndarray) -> "Runs":
        """A part of the runs, by mask or by positions."""
        groups = None if self.groups is None else self.groups[which]
        return Runs(self.N[which], self.D[which], self.U[which], self.loss[which], groups)

    @property
    def epochs(self) -> np.ndarray:
        return np.maximum(self.D / self.U, 1.0)

    @property
    def flops(self) -> np.ndarray:
        """Training compute, C = 6 N D."""
        return 6 * self.N * self.D

    @property
    def is_repeated(self) -> bool:
        """Whether any run saw its data more than once."""
        return bool((self.epochs > 1.01).any())


def points(N: ArrayLike, D: ArrayLike, U: ArrayLike | None = None) -> Runs:
    """Where a law shall be evaluated; the losses are placeholders."""
    N, D = np.broadcast_arrays(np.asarray(N, np.float64), np.asarray(D, np.float64))
    return Runs.of(N, D, np.ones_like(N), None if U is None else np.broadcast_to(U, N.shape))


def log_repetitions(D: Numbers, U: Numbers) -> np.ndarray:
    """Logarithm of max(D/U - 1, 0), minus infinity where nothing was repeated."""
    repetitions = np.maximum(np.asarray(D) / np.asarray(U) - 1, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.where(repetitions < 1e-9, 0.0, repetitions))
