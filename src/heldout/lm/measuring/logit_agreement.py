"""How near two models are in their logits at every position of some texts."""

# T tokens, V vocabulary, N positions of all rows

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from heldout.core.results.merge import LogitAgreement
from heldout.core.row import Row
from heldout.lm.nll import context_length, evaluating
from heldout.lm.tokenize import tokenize_row

MOST_ROWS = 8
MOST_NUMBERS = 64_000_000  # logits kept of one model: 256 MB


def rows_of_ids(
    rows: Sequence[Row], tokenizer: Any, model: Any, max_length: int
) -> list[list[int]]:
    """Token ids of the first window of some rows, as many as the logits may take of memory."""
    limit = min(max_length, context_length(model) or max_length)
    positions = max(2, MOST_NUMBERS // model.get_output_embeddings().weight.shape[0])
    most = max(2, positions // max(1, min(MOST_ROWS, len(rows))))
    found = []
    for row in rows[:MOST_ROWS]:
        windows = tokenize_row(row, tokenizer, limit).windows
        if windows:
            found.append(windows[0].input_ids[:most])
    return found


def logits_of(model: Any, rows_of_ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits (T, V) of each row in float32, on the CPU; one row at a time, without padding."""
    return list(_logits(model, rows_of_ids))


def logit_agreement(
    before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]
) -> LogitAgreement:
    """Compare the logits (T, V) of each row, position by position."""
    differences, divergences, same = [], [], []
    for first_TV, second_TV in zip(before, after, strict=True):
        width = min(first_TV.shape[1], second_TV.shape[1])  # without rows of padding of one
        first_TV, second_TV = first_TV[:, :width], second_TV[:, :width]
        differences.append(float((first_TV - second_TV).abs().max()))
        p_TV, q_TV = (each.double().log_softmax(-1) for each in (first_TV, second_TV))
        divergences.append((p_TV.exp() * (p_TV - q_TV)).sum(-1))
        same.append(first_TV.argmax(-1) == second_TV.argmax(-1))
    kl_N, same_N = torch.cat(divergences).clamp(min=0), torch.cat(same)
    return LogitAgreement(
        num_rows=len(before),
        num_positions=len(kl_N),
        largest_difference=max(differences),
        mean_kl_nats=float(kl_N.mean()),
        largest_kl_nats=float(kl_N.max()),
        same_likeliest=float(same_N.double().mean()),
    )


def _logits(model: Any, rows_of_ids: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
    device = next(model.parameters()).device
    with evaluating(model):
        for ids in rows_of_ids:
            logits = model(input_ids=torch.tensor([list(ids)], device=device)).logits
            yield logits[0].float().cpu()
