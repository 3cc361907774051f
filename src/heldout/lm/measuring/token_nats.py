"""The loss of every scored token: of rows, in their order, or of windows, one by one."""

# D documents, N scored tokens, T those of one window

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from heldout.core.row import Row
from heldout.core.token_losses import TokenLosses
from heldout.lm.nll import check_finite, evaluating, model_inputs
from heldout.lm.scored_loss import scored_nats
from heldout.lm.tokenize import Window
from heldout.lm.window_stream import buffers


def token_losses(
    model: torch.nn.Module,
    rows: Iterable[Row],
    tokenizer: Any,
    *,
    max_length: int,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> TokenLosses:
    """As ``document_losses``, token by token: eight bytes of memory a token.

    The same windows of the same rows, so that the losses of models with one tokenizer can be put
    beside each other. ``progress`` is called with the number of rows measured so far. Raises
    TrainingDiverged, a UserError, naming the first row whose loss is not finite.
    """
    device = next(model.parameters()).device
    found: list[np.ndarray] = []
    tokens: list[int] = []
    groups: list[str] = []
    with evaluating(model):
        for buffer in buffers(rows, tokenizer, max_length=max_length, batch_size=batch_size):
            nats = [np.zeros(each.num_tokens) for each in buffer.tokenized]
            for batch in buffer.batches(batch_size):
                inputs = model_inputs(model, [p.window for p in batch], tokenizer, device)
                nats_N, windows_N = (each.cpu() for each in scored_nats(model, inputs))
                for place, piece in enumerate(batch):
                    of_window = nats_N[windows_N == place].double().numpy()
                    span = slice(piece.first_token, piece.first_token + len(of_window))
                    nats[piece.row][span] = of_window
                    check_finite(float(of_window.sum()), buffer.rows[piece.row])
            found.extend(nats)
            tokens.extend(map(len, nats))
            groups.extend(row.group for row in buffer.rows)
            if progress:
                progress(len(tokens))
    return TokenLosses(
        np.concatenate([*found, np.zeros(0)]), np.array(tokens), np.array(groups, dtype=str)
    )


def token_nats_of(
    model: torch.nn.Module, windows: Sequence[Window], tokenizer: Any, batch_size: int
) -> list[np.ndarray]:
    """(T,) losses in nats of the scored tokens of each window, in evaluation mode.

    One forward pass; windows of nearly equal length go together.
    """
    device = next(model.parameters()).device
    found: list[np.ndarray] = [np.empty(0)] * len(windows)
    order = sorted(range(len(windows)), key=lambda place: -len(windows[place].input_ids))
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            inputs = model_inputs(model, [windows[place] for place in chosen], tokenizer, device)
            nats_N, rows_N = scored_nats(model, inputs)
            values_N, of_window_N = nats_N.cpu().double().numpy(), rows_N.cpu().numpy()
            for number, place in enumerate(chosen):
                found[place] = values_N[of_window_N == number]
    return found
