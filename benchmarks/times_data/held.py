"""Losses on a held-out part under any weights."""

import numpy as np
import torch
from times_data.speeches import Data
from times_data.trainings import put_in

from heldout.core.losses import DocumentLosses
from heldout.lm.nll import evaluating
from heldout.lm.scored_loss import scored_nats
from heldout.lm.tokenize import Window, collate

# G groups, N scored tokens, K members


def token_nats(model, windows: list[Window], pad_id: int) -> np.ndarray:
    """Loss of every scored token, in the order of the windows."""
    found: list[np.ndarray] = []
    with evaluating(model):
        for start in range(0, len(windows), 32):
            batch = collate(windows[start : start + 32], pad_id)
            found.append(scored_nats(model, batch)[0].numpy())
    return np.concatenate(found)


def groups_of_tokens(windows: list[Window], groups: list[str]) -> np.ndarray:
    return np.repeat(groups, [window.num_scored for window in windows])


class Held:
    """One held-out part: its losses under any weights, kept in a file."""

    def __init__(self, part: str, data: Data):
        self.part = part
        self.windows, groups = data.windows(part)
        self.groups_N = groups_of_tokens(self.windows, groups)
        self.num_bytes = sum(len(text.encode()) for _, text in data.parts[part])
        self.pad_id = data.tokenizer.pad_token_id

    def nats(self, weights: dict[str, torch.Tensor]) -> np.ndarray:
        return token_nats(put_in(weights), self.windows, self.pad_id)

    def losses(self, nats_N: np.ndarray) -> DocumentLosses:
        names_G, index_N = np.unique(self.groups_N, return_inverse=True)
        tokens_G = np.bincount(index_N)
        return DocumentLosses(
            np.bincount(index_N, nats_N.astype(np.float64)),
            tokens_G,
            np.zeros(len(names_G), dtype=np.int64),
            names_G,
        )
