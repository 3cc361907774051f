"""Loss of planted secrets beside others that could have been planted."""

# K canaries, R references

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from heldout.core.readings import CanaryLosses
from heldout.core.row import Row
from heldout.lm.nll import document_losses

NUM_REFERENCES = 200


@dataclass(frozen=True)
class Planted:
    """``secret``, all digits, follows ``prefix`` in ``copies`` training rows."""

    prefix: str
    secret: str
    copies: int


def canary_losses(
    model: torch.nn.Module,
    tokenizer: Any,
    planted: Sequence[Planted],
    kind: Literal["text", "completion", "conversation"],
    *,
    batch_size: int,
    num_references: int = NUM_REFERENCES,
    seed: int = 0,
) -> CanaryLosses:
    """Losses of each secret and of ``num_references`` other secrets of as many digits.

    Rows are worded as ``heldout check --plant-canaries`` words them in data of that kind. Costs a
    forward pass over ``num_references`` + 1 short rows per secret.
    """
    rows: list[Row] = []
    for number, canary in enumerate(planted):
        draw = random.Random(f"canary references {seed} {number}")
        digits = len(canary.secret)
        others: set[str] = set()
        while len(others) < num_references:
            other = f"{draw.randrange(10**digits):0{digits}d}"
            if other != canary.secret:
                others.add(other)
        for secret in (canary.secret, *sorted(others)):
            rows.append(Row(len(rows), _messages(kind, canary.prefix, secret), f"{number}"))
    losses = document_losses(model, rows, tokenizer, max_length=1 << 16, batch_size=batch_size)
    nats_KR = losses.nll_nats_D.reshape(len(planted), 1 + num_references)
    copies_K = np.array([canary.copies for canary in planted])
    return CanaryLosses(copies_K, nats_KR[:, 0], nats_KR[:, 1:])


def _messages(kind: str, prefix: str, secret: str) -> tuple[dict[str, str], ...]:
    if kind == "text":
        return ({"role": "text", "content": prefix + secret},)
    asked = f"Complete: {prefix.strip()}"
    roles = ("prompt", "completion") if kind == "completion" else ("user", "assistant")
    return ({"role": roles[0], "content": asked}, {"role": roles[1], "content": secret})
