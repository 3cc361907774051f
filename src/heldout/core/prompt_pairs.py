"""How far a model's answers move when its prompt changes, harmlessly or in a fact that matters."""

# P prompts

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class PromptPairs:
    """Divergences in nats per answer token, of one model; NaN where a prompt has no such change.

    The divergence of two prompts is the mean over both of |log P(answer to one | other) - log
    P(answer to one | one)| / tokens of the answer, answers being greedy.
    """

    posix_P: np.ndarray  # mean over all pairs of a prompt and its harmless rewordings
    harmless_P: np.ndarray  # mean over the prompt and each rewording
    key_P: np.ndarray  # the prompt and itself with one key fact changed
    groups_P: np.ndarray
    row_index_P: np.ndarray
    prompts: list[str] = field(default_factory=list)
    rewordings: list[dict[str, str]] = field(default_factory=list)  # by the name of the change
    changed: list[str] = field(default_factory=list)  # "" where nothing looked like a key fact

    def __len__(self) -> int:
        return len(self.posix_P)
