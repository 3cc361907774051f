"""Negative log-likelihood of documents, streamed: without dropout, penalties or smoothing."""

# D documents, N scored tokens

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.losses import DocumentLosses
from heldout.core.row import Row
from heldout.lm.head import scored_nats, unwrapped
from heldout.lm.passes import evaluation_mode
from heldout.lm.tokenize import Window, collate, tokenize_row

BUFFERED_BATCHES = 16  # windows of so many batches are sorted by length together


def document_losses(
    model: torch.nn.Module,
    rows: Iterable[Row],
    tokenizer: Any,
    *,
    max_length: int,
    batch_size: int,
    device: str | torch.device | None = None,
    progress: Callable[[int], None] | None = None,
) -> DocumentLosses:
    """Loss of each row in nats, in the order of the rows, with its scored tokens and bytes.

    A long row is measured in windows (see ``tokenize_row``) whose losses are added up. Rows are
    read as they are needed: memory holds one buffer of windows, three numbers and a group per row,
    and one chunk of logits. The model is in evaluation mode meanwhile and is left as it was found;
    no random numbers are drawn. ``progress`` is called with the number of rows measured so far.

    Raises TrainingDiverged, a UserError, naming the first row whose loss is not finite.
    """
    device = device or next(model.parameters()).device
    nll_nats, num_tokens, num_bytes = array("d"), array("q"), array("q")
    row_indices, groups = array("q"), []
    shared_groups: dict[str, str] = {}
    buffer: list[tuple[int, Window]] = []

    def measure_buffer() -> None:
        # Longest first: like lengths together, and too little memory shows at once.
        buffer.sort(key=lambda item: -len(item[1].input_ids))
        for start in range(0, len(buffer), batch_size):
            part = buffer[start : start + batch_size]
            sums = _window_nats(model, [window for _, window in part], tokenizer, device)
            for (document, _), nats in zip(part, sums, strict=True):
                nll_nats[document] += nats
                if not np.isfinite(nats):
                    raise TrainingDiverged(
                        f"The loss of row {row_indices[document]} is {nats}, not a finite number: "
                        "the model's weights or its precision are at fault."
                    )
        buffer.clear()
        if progress:
            progress(len(nll_nats))

    with evaluating(model):
        for row in rows:
            tokenized = tokenize_row(row, tokenizer, max_length)
            buffer += [(len(nll_nats), window) for window in tokenized.windows]
            nll_nats.append(0.0)
            num_tokens.append(tokenized.num_tokens)
            num_bytes.append(tokenized.num_bytes)
            row_indices.append(row.index)
            groups.append(shared_groups.setdefault(row.group, row.group))
            if len(buffer) >= BUFFERED_BATCHES * batch_size:
                measure_buffer()
        measure_buffer()
    return DocumentLosses(
        np.array(nll_nats), np.array(num_tokens), np.array(num_bytes), np.array(groups, dtype=str)
    )


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's own mode is restored afterwards."""
    # accelerate wraps forward in autocast for mixed precision; losses are compared in full.
    wrapped = model.__dict__.get("forward")
    original = model.__dict__.get("_original_forward")
    if wrapped is not None and original is not None:
        model.forward = original
    try:
        with torch.no_grad(), evaluation_mode(model):
            yield
    finally:
        if wrapped is not None and original is not None:
            model.forward = wrapped


def context_length(model: torch.nn.Module) -> int | None:
    """The longest text in tokens that the model's positions are made for, None if unlimited."""
    return getattr(unwrapped(model).config.get_text_config(), "max_position_embeddings", None)


def _window_nats(model, windows: list[Window], tokenizer, device) -> list[float]:
    """Summed loss of each window, added in double precision."""
    longest, limit = max(len(window.input_ids) for window in windows), context_length(model)
    if limit is not None and longest > limit:
        raise UserError(
            f"data.max_length must be at most {limit}, what this model can read, for rows as long "
            f"as {longest} tokens: set data.max_length={limit}."
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    batch = collate(windows, pad_id)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    nats_N, rows_N = scored_nats(model, batch)
    sums = torch.zeros(len(windows), dtype=torch.float64)
    return sums.index_add_(0, rows_N.cpu(), nats_N.double().cpu()).tolist()
