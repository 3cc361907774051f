"""Goldfish loss: some tokens are never learned, so that no passage can be recited whole.

A token is dropped from the loss where a hash of the ``context`` tokens before it is divisible by
``drop_every``: about every ``drop_every``-th. The hash knows nothing of the token itself, so the
same passage loses the same tokens wherever it occurs, and repetition does not fill the gaps. Works
against verbatim memorization of repeated text; costs that share of the training signal. Tokens with
less context than that in their sequence are always learned.
"""

# B batch, T tokens

from dataclasses import dataclass
from typing import Any

import torch

from heldout.core.regularizer import Regularizer
from heldout.lm.sequences import sequence_index
from heldout.lm.tokenize import IGNORED

SOURCE = "Hans et al. 2024, arXiv 2406.10209"
COST = "none: a few integer operations per token; one of drop_every tokens teaches nothing"

# Below 2^31, so that products of two residues stay exact in int64 on every device.
_PRIME = 2**31 - 1
_BASE = 1_000_003


def context_hash(input_ids_BT: torch.Tensor, context: int) -> torch.Tensor:
    """(B, T) integers from 0 to under 2^31: a hash of the ``context`` tokens before each token.

    Depends on these ids and their order alone. The first ``context`` of each row are 0.
    """
    num = input_ids_BT.shape[1] - context
    hash_BT = torch.zeros_like(input_ids_BT, dtype=torch.int64)
    if num <= 0:
        return hash_BT
    value = hash_BT[:, :num]
    for shift in range(context):
        value = (value * _BASE + input_ids_BT[:, shift : shift + num] + 1) % _PRIME
    # Without mixing, neighboring ids would give neighboring values.
    for multiplier in (0x2C1B3C6D, 0x297A2D39):
        value = ((value ^ (value >> 15)) * multiplier) % _PRIME
    hash_BT[:, context:] = value ^ (value >> 15)
    return hash_BT


def goldfish_dropped(batch: dict[str, Any], drop_every: int, context: int) -> torch.Tensor:
    """(B, T) true at the tokens to be dropped from the loss, padded and packed batches alike."""
    index_BT = sequence_index(batch)
    dropped_BT = context_hash(batch["input_ids"], context) % drop_every == 0
    dropped_BT[:, :context] = False
    dropped_BT[:, context:] &= index_BT[:, context:] == index_BT[:, :-context]
    return dropped_BT


@dataclass(frozen=True)
class Goldfish(Regularizer):
    """One of ``drop_every`` tokens is dropped, chosen by the ``context`` tokens before it."""

    drop_every: int = 4
    context: int = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("drop_every", self.drop_every >= 2, "2 or more")
        self.require("context", self.context >= 1, "1 or more")

    def edit_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        dropped_BT = goldfish_dropped(batch, self.drop_every, self.context)
        return {**batch, "labels": batch["labels"].masked_fill(dropped_BT, IGNORED)}
