"""Rows, read as they are needed, become batches of windows of like length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from heldout.core.row import Row
from heldout.lm.tokenize import TokenizedRow, Window, tokenize_rows

BUFFERED_BATCHES = 16  # windows of so many batches are sorted by length together


@dataclass(frozen=True)
class BufferedWindow:
    """One window of a buffered row; ``first_token`` counts the row's scored tokens before it."""

    row: int  # place in the buffer
    first_token: int
    window: Window


@dataclass
class Buffer:
    """Some consecutive rows with all their windows."""

    rows: list[Row] = field(default_factory=list)
    tokenized: list[TokenizedRow] = field(default_factory=list)
    windows: list[BufferedWindow] = field(default_factory=list)

    def batches(self, batch_size: int) -> Iterator[list[BufferedWindow]]:
        """Longest first: like lengths together, and too little memory shows at once."""
        windows = sorted(self.windows, key=lambda one: -len(one.window.input_ids))
        for start in range(0, len(windows), batch_size):
            yield windows[start : start + batch_size]


def buffers(
    rows: Iterable[Row], tokenizer: Any, *, max_length: int, batch_size: int
) -> Iterator[Buffer]:
    """Every row once, in order; a buffer holds ``BUFFERED_BATCHES`` batches of windows or rows.

    It is one and the same buffer, emptied when the next is asked for: texts and tokens go at once.
    """
    size = BUFFERED_BATCHES * batch_size
    buffer = Buffer()
    for row, tokenized in tokenize_rows(rows, tokenizer, max_length):
        first_token = 0
        for window in tokenized.windows:
            buffer.windows.append(BufferedWindow(len(buffer.rows), first_token, window))
            first_token += window.num_scored
        buffer.rows.append(row)
        buffer.tokenized.append(tokenized)
        if max(len(buffer.windows), len(buffer.rows)) >= size:
            yield buffer
            for items in (buffer.rows, buffer.tokenized, buffer.windows):
                items.clear()
    if buffer.rows:
        yield buffer
