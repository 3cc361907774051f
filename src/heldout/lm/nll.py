"""Negative log-likelihood of documents, streamed: without dropout, penalties or smoothing."""

# D documents, N scored tokens

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from heldout.core.errors import TrainingDiverged, UserError
from heldout.core.losses import DocumentLosses
from heldout.core.row import Row
from heldout.lm.head import unwrapped
from heldout.lm.scored_loss import scored_nats
from heldout.lm.tokenize import Window, collate
from heldout.lm.undisturbed import evaluation_mode
from heldout.lm.window_stream import Buffer, buffers


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
    found = GrowingLosses()
    with evaluating(model):
        for buffer in buffers(rows, tokenizer, max_length=max_length, batch_size=batch_size):
            nats = [0.0] * len(buffer.rows)
            for batch in buffer.batches(batch_size):
                inputs = model_inputs(model, [each.window for each in batch], tokenizer, device)
                for buffered, of_window in zip(batch, window_nats(model, inputs), strict=True):
                    nats[buffered.row] += of_window
                    check_finite(of_window, buffer.rows[buffered.row])
            found.add(buffer, nats)
            if progress:
                progress(len(found))
    return found.finish()


def window_nats(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[float]:
    """Loss of each window of a batch in nats, its scored tokens added up in float64."""
    nats_N, windows_N = scored_nats(model, inputs)
    sums = torch.zeros(len(inputs["labels"]), dtype=torch.float64)
    return sums.index_add_(0, windows_N.cpu(), nats_N.cpu().double()).tolist()


class GrowingLosses:
    """DocumentLosses while they are measured: three numbers and a group per row."""

    def __init__(self) -> None:
        self._nats, self._tokens, self._bytes = array("d"), array("q"), array("q")
        self._groups: list[str] = []
        self._shared: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._nats)

    def add(self, buffer: Buffer, nats: Sequence[float]) -> None:
        """One buffer's rows, with the loss of each."""
        self._nats.extend(nats)
        for row, tokenized in zip(buffer.rows, buffer.tokenized, strict=True):
            self._tokens.append(tokenized.num_tokens)
            self._bytes.append(tokenized.num_bytes)
            self._groups.append(self._shared.setdefault(row.group, row.group))

    def finish(self) -> DocumentLosses:
        return DocumentLosses(
            np.array(self._nats),
            np.array(self._tokens),
            np.array(self._bytes),
            np.array(self._groups, dtype=str),
        )


def check_finite(nats: float, row: Row) -> None:
    """Raise TrainingDiverged, naming the row, where its loss is no finite number."""
    if not np.isfinite(nats):
        raise TrainingDiverged(
            f"The loss of row {row.index} is {nats}, not a finite number: "
            "the model's weights or its precision are at fault."
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


def model_inputs(
    model: torch.nn.Module, windows: list[Window], tokenizer: Any, device: Any
) -> dict[str, torch.Tensor]:
    """The windows as one padded batch on ``device``; UserError where the model reads less."""
    longest, limit = max(len(window.input_ids) for window in windows), context_length(model)
    if limit is not None and longest > limit:
        raise UserError(
            f"data.max_length must be at most {limit}, what this model can read, for rows as long "
            f"as {longest} tokens: set data.max_length={limit}."
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return {name: tensor.to(device) for name, tensor in collate(windows, pad_id).items()}


def context_length(model: torch.nn.Module) -> int | None:
    """The longest text in tokens that the model's positions are made for, None if unlimited."""
    length = getattr(unwrapped(model).config.get_text_config(), "max_position_embeddings", None)
    return length if length and length > 0 else None
