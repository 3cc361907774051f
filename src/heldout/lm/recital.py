"""Which rows a model recites: given their beginning, greedy decoding returns the exact rest."""

# N scored tokens, V vocabulary

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from heldout.core.probe import Recital
from heldout.core.row import Row
from heldout.lm.head import scored_logits
from heldout.lm.nll import evaluating
from heldout.lm.tokenize import IGNORED, Window, collate, tokenize_row

PREFIX_TOKENS = 10
SUFFIX_TOKENS = 20


def recital(
    model: torch.nn.Module,
    rows: Iterable[Row],
    tokenizer: Any,
    *,
    max_length: int,
    batch_size: int,
    prefix_tokens: int = PREFIX_TOKENS,
    suffix_tokens: int = SUFFIX_TOKENS,
) -> Recital:
    """Whether each row's ``suffix_tokens`` follow exactly, after prompt and ``prefix_tokens``.

    One forward pass tells: greedy decoding returns the suffix if and only if, with the true text
    as context, every suffix token is the likeliest one. No generation is needed. Rows with fewer
    scored tokens than both together are left out. After Carlini et al. 2022 (arXiv 2202.07646),
    with lengths that suit short answers. Holds batch_size x suffix_tokens x vocabulary logits.
    """
    chosen: list[tuple[Row, Window]] = []
    for row in rows:
        window = tokenize_row(row, tokenizer, max_length).windows[0]
        scored = [p for p, label in enumerate(window.labels) if label != IGNORED]
        if len(scored) < prefix_tokens + suffix_tokens:
            continue
        suffix = scored[prefix_tokens : prefix_tokens + suffix_tokens]
        end = suffix[-1] + 1
        labels = [IGNORED] * end
        for position in suffix:
            labels[position] = window.input_ids[position]
        chosen.append((row, Window(list(window.input_ids[:end]), labels)))
    recited = []
    device = next(model.parameters()).device
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    with evaluating(model):
        for start in range(0, len(chosen), batch_size):
            part = [window for _, window in chosen[start : start + batch_size]]
            batch = {name: t.to(device) for name, t in collate(part, pad_id).items()}
            logits_NV, targets_N = scored_logits(model, batch)
            right = (logits_NV.argmax(dim=1) == targets_N).view(len(part), suffix_tokens)
            recited += right.all(dim=1).tolist()
    return Recital(
        np.array(recited, dtype=bool),
        np.array([row.group for row, _ in chosen], dtype=str),
        np.array([row.index for row, _ in chosen], dtype=int),
    )


def recital_prompt(
    row: Row, tokenizer: Any, max_length: int, prefix_tokens: int = PREFIX_TOKENS
) -> tuple[list[int], str]:
    """Token ids up to the place where the recital begins, and the text that follows there."""
    window = tokenize_row(row, tokenizer, max_length).windows[0]
    scored = [p for p, label in enumerate(window.labels) if label != IGNORED]
    start = scored[min(prefix_tokens, len(scored) - 1)]
    rest = tokenizer.decode(window.input_ids[start:], skip_special_tokens=True)
    return list(window.input_ids[:start]), rest
