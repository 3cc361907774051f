"""How much likelier answers are to a model after their own prompts than after those of others."""

# D rows that have both

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OtherPrompts:
    """Losses in nats of the same answer tokens, after its own prompt and after another row's."""

    own_nats_D: np.ndarray
    other_nats_D: np.ndarray
    groups_D: np.ndarray

    def __len__(self) -> int:
        return len(self.own_nats_D)
