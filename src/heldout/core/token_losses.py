"""Loss of every scored token, kept so that the predictions of several models can be averaged."""

# D documents, N scored tokens

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heldout.core.files import written_whole


@dataclass(frozen=True)
class TokenLosses:
    """Nats of each scored token, document after document; no dropout, penalty or smoothing."""

    nats_N: np.ndarray
    num_tokens_D: np.ndarray
    groups_D: np.ndarray  # what intervals resample

    @property
    def group_index_N(self) -> np.ndarray:
        """For each token the place of its document's group among the sorted names of all."""
        _, index_D = np.unique(self.groups_D, return_inverse=True)
        return np.repeat(index_D, self.num_tokens_D)

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with written_whole(path) as partial:
            np.savez(partial, nats=self.nats_N, num_tokens=self.num_tokens_D, groups=self.groups_D)

    @classmethod
    def load(cls, path: Path) -> "TokenLosses":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["nats"], arrays["num_tokens"], arrays["groups"])
