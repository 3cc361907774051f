"""Rows become windows of tokens in which every scored token is scored exactly once.

Nothing is truncated: a row longer than a window is cut into several, so its end-of-text token
cannot get lost. What a model is trained on and what it is measured on is decided here alone.
"""

# B windows in a batch, T tokens

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heldout.core.row import Row
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.conversation import prompt_and_answer
from heldout.lm.row_tokens import RowTokens, with_tokens
from heldout.lm.special_tokens import (
    content_ids,
    prompted_ids,
    special_prefix,
    without_doubled_start,
)

IGNORED = -100  # label of a token that is context only
ORIGIN = ("row_index", "source_index")  # of a batch: where its windows come from
MAX_PROMPT_TOKENS = 32  # of a plain text, when it is to be continued


@dataclass(frozen=True)
class Window:
    """At most ``max_length`` tokens; ``labels[t]`` is ``input_ids[t]`` where scored, else -100.

    Labels are not shifted. The first label is always -100: that token has no predecessor here.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def num_scored(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True)
class TokenizedRow:
    """The windows of one row, with its number of scored tokens and UTF-8 bytes of scored text.

    The end-of-text token counts as a token and has no bytes.
    """

    windows: list[Window]
    num_tokens: int
    num_bytes: int
    num_examples: int = 1
    num_repeated: int = 0  # tokens with which an example begins as the one before it does


def tokenize_row(row: Row, tokenizer: Any, max_length: int) -> TokenizedRow:
    """Tokenize a row and cut it into windows of at most ``max_length`` (2 or more) tokens.

    - text: the tokenizer's own leading special tokens, the text, the end-of-text token once; all
      but the very first token are scored.
    - prompt and completion: the completion is tokenized on its own, as it is when generated; it
      and the end-of-text token are scored.
    - conversation: the chat template; the assistant's tokens with their end-of-turn token are
      scored. Where the template changes earlier answers for later ones, each answer is an example
      of its own, behind what the model sees then (docs/decisions/017).

    Windows of a plain text overlap by one token, so that every scored token keeps a predecessor.
    Where a row has a prompt they overlap by half a window, so that an answer is not scored without
    what it answers. A row without scored tokens has no windows.

    Raises UserError naming the row where the chat template is missing or refuses it.
    """
    ((_, tokenized),) = tokenize_rows([row], tokenizer, max_length)
    return tokenized


def tokenize_rows(
    rows: Iterable[Row], tokenizer: Any, max_length: int
) -> Iterator[tuple[Row, TokenizedRow]]:
    """Every row as ``tokenize_row`` cuts it, in order; reads some dozens of rows ahead."""
    assert max_length >= 2, f"a window needs a token and its predecessor, got {max_length}"
    for row, tokens in with_tokens(rows, tokenizer):
        yield row, _in_windows(row, tokens, max_length)


def collate(windows: Sequence[Window], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest window: input_ids, attention_mask and labels, each (B, T).

    The mask and the labels of -100 say what is padding, never the id, which may be a real token.
    """
    longest = max(len(window.input_ids) for window in windows)
    shape = (len(windows), longest)
    input_ids_BT = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask_BT = torch.zeros(shape, dtype=torch.long)
    labels_BT = torch.full(shape, IGNORED, dtype=torch.long)
    for index, window in enumerate(windows):
        length = len(window.input_ids)
        input_ids_BT[index, :length] = torch.tensor(window.input_ids)
        attention_mask_BT[index, :length] = 1
        labels_BT[index, :length] = torch.tensor(window.labels)
    return {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT, "labels": labels_BT}


def prompt_ids(row: Row, tokenizer: Any, size: TokenSize = ENGLISH_TOKENS) -> tuple[list[int], str]:
    """The tokens to generate from, and the text that the row has in that place.

    A text is prompted with its first third, at most 32 tokens (of smaller ones as many as hold as
    much text), up to a whole character; a conversation with all that comes before its last
    assistant message.
    """
    if row.kind == "text":
        text = row.messages[0]["content"]
        content = content_ids(tokenizer, text)
        most = max(1, min(len(content) // 3, size.tokens(MAX_PROMPT_TOKENS)))
        num_prompt = whole_cut(tokenizer, content, most)
        prefix = special_prefix(tokenizer)
        rest = decoded(tokenizer, content[num_prompt:])
        return without_doubled_start(prefix, content[:num_prompt]), rest
    if row.kind == "completion":
        prompt, completion = (message["content"] for message in row.messages)
        return prompted_ids(tokenizer, prompt), completion
    prompt, reference = prompt_and_answer(row, tokenizer)
    return content_ids(tokenizer, prompt), reference


def _in_windows(row: Row, tokens: RowTokens, max_length: int) -> TokenizedRow:
    context = 1 if row.kind == "text" else max_length // 2
    windows = [
        window
        for ids_N, scored_N in tokens.examples()
        for window in _cut(ids_N, scored_N, max_length, context)
    ]
    return TokenizedRow(
        windows,
        int(np.count_nonzero(tokens.scored_N)),
        tokens.num_bytes,
        len(tokens.lengths),
        tokens.num_repeated,
    )


def _cut(ids_N: np.ndarray, scored_N: np.ndarray, max_length: int, context: int) -> list[Window]:
    """Windows that score every scored token once, each looking back over ``context`` tokens."""
    labels_N = np.where(scored_N, ids_N, IGNORED)
    if len(ids_N) <= max_length:
        return [Window(ids_N.tolist(), labels_N.tolist())] if scored_N.any() else []
    windows = []
    places = np.flatnonzero(scored_N)  # that are not in a window yet
    while len(places):
        first = int(places[0])
        start = first - context
        if context > 1:  # reach back as far as the last window has room for
            start = max(0, min(start, len(ids_N) - max_length))
        stop = min(len(ids_N), start + max_length)
        before = [IGNORED] * (first - start)
        windows.append(Window(ids_N[start:stop].tolist(), before + labels_N[first:stop].tolist()))
        places = places[np.searchsorted(places, stop) :]
    return windows
