"""Loss per document, kept so that any two checkpoints can be compared document by document."""

# D documents

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heldout.core.files import written_whole
from heldout.core.stats import RatioEstimate, paired_difference, ratio_estimate


@dataclass(frozen=True)
class DocumentLosses:
    """Negative log-likelihood of each document: no dropout, penalty or smoothing in it."""

    nll_nats_D: np.ndarray
    num_tokens_D: np.ndarray  # scored tokens
    num_bytes_D: np.ndarray  # UTF-8 bytes of the scored text
    groups_D: np.ndarray  # what intervals resample

    def __post_init__(self) -> None:
        lengths = {len(self.nll_nats_D), len(self.num_tokens_D), len(self.num_bytes_D)}
        assert lengths == {len(self.groups_D)}, f"unequal lengths {lengths}"

    def __len__(self) -> int:
        return len(self.nll_nats_D)

    @property
    def num_groups(self) -> int:
        return len(np.unique(self.groups_D))

    @property
    def nats_per_token(self) -> float:
        """Mean over tokens, in nats."""
        return float(self.nll_nats_D.sum() / self.num_tokens_D.sum())

    @property
    def bits_per_byte(self) -> float:
        """Comparable across tokenizers; the end-of-text token counts in bits, not in bytes."""
        return float(self.nll_nats_D.sum() / np.log(2) / max(1, self.num_bytes_D.sum()))

    def estimate(self) -> RatioEstimate:
        """Nats per token with its interval over groups."""
        return ratio_estimate(self.nll_nats_D, self.num_tokens_D, self.groups_D)

    def minus(self, control: "DocumentLosses") -> RatioEstimate:
        """Paired difference to ``control`` on the same documents, in nats per token."""
        assert np.array_equal(self.num_tokens_D, control.num_tokens_D), "not the same documents"
        return paired_difference(
            self.nll_nats_D, control.nll_nats_D, self.num_tokens_D, self.groups_D
        )

    def at(self, places: Sequence[int]) -> "DocumentLosses":
        """Of the documents at these places, in their order."""
        chosen = np.asarray(places, dtype=np.int64)
        return DocumentLosses(
            self.nll_nats_D[chosen],
            self.num_tokens_D[chosen],
            self.num_bytes_D[chosen],
            self.groups_D[chosen],
        )

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with written_whole(path) as partial:
            np.savez(
                partial,
                nll_nats=self.nll_nats_D,
                num_tokens=self.num_tokens_D,
                num_bytes=self.num_bytes_D,
                groups=self.groups_D,
            )

    @classmethod
    def load(cls, path: Path) -> "DocumentLosses":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(
                arrays["nll_nats"], arrays["num_tokens"], arrays["num_bytes"], arrays["groups"]
            )

    @classmethod
    def concatenate(cls, parts: list["DocumentLosses"]) -> "DocumentLosses":
        return cls(
            np.concatenate([part.nll_nats_D for part in parts]),
            np.concatenate([part.num_tokens_D for part in parts]),
            np.concatenate([part.num_bytes_D for part in parts]),
            np.concatenate([part.groups_D for part in parts]),
        )
