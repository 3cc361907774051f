"""Rows become windows of tokens in which every scored token is scored exactly once.

Nothing is truncated: a row longer than a window is cut into several, so its end-of-text token
cannot get lost. What a model is trained on and what it is measured on is decided here alone.
"""

# B windows in a batch, T tokens

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from heldout.core.row import Row, learned_texts
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.conversation import Example, common_length, examples_of, prompt_and_answer
from heldout.lm.special_tokens import (
    content_ids,
    continuation_ids,
    prompted_ids,
    special_prefix,
    with_end,
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
    assert max_length >= 2, f"a window needs a token and its predecessor, got {max_length}"
    examples, num_bytes = _examples(row, tokenizer)
    context = 1 if row.kind == "text" else max_length // 2
    windows = [
        window for each in examples for window in _cut(each.ids, each.scored, max_length, context)
    ]
    num_scored = sum(sum(each.scored) for each in examples)
    repeated = sum(common_length(a.ids, b.ids) for a, b in itertools.pairwise(examples))
    return TokenizedRow(windows, num_scored, num_bytes, len(examples), repeated)


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


def _examples(row: Row, tokenizer: Any) -> tuple[list[Example], int]:
    """Token ids of the row, which of them are scored, and the bytes of the scored text."""
    if row.kind == "text":
        text = row.messages[0]["content"]
        prefix = special_prefix(tokenizer)
        ids = with_end(tokenizer, without_doubled_start(prefix, content_ids(tokenizer, text)))
        unscored_text = "" if prefix else _first_token_text(tokenizer, text)
        scored = [position > 0 for position in range(len(ids))]
        return [Example(ids, scored)], _num_bytes(text) - _num_bytes(unscored_text)
    if row.kind == "completion":
        prompt, completion = (message["content"] for message in row.messages)
        prompt_tokens = prompted_ids(tokenizer, prompt)
        ids = prompt_tokens + with_end(tokenizer, continuation_ids(tokenizer, completion))
        scored = [position >= max(1, len(prompt_tokens)) for position in range(len(ids))]
        return [Example(ids, scored)], _num_bytes(completion)
    examples = examples_of(row, tokenizer)
    for example in examples:
        example.scored[0] = False
    return examples, sum(map(_num_bytes, learned_texts(row)))


def _cut(ids: list[int], scored: list[bool], max_length: int, context: int) -> list[Window]:
    """Windows that score every scored token once, each looking back over ``context`` tokens."""
    if len(ids) <= max_length:
        bounds = [(0, 0, len(ids))] if any(scored) else []
    else:
        bounds = []
        todo = (position for position, counts in enumerate(scored) if counts)
        first = next(todo, None)
        while first is not None:
            start = first - context
            if context > 1:  # reach back as far as the last window has room for
                start = max(0, min(start, len(ids) - max_length))
            stop = min(len(ids), start + max_length)
            bounds.append((start, first, stop))
            first = next((position for position in todo if position >= stop), None)
    return [
        Window(
            ids[start:stop],
            [
                ids[position] if scored[position] and position >= first else IGNORED
                for position in range(start, stop)
            ],
        )
        for start, first, stop in bounds
    ]


def _first_token_text(tokenizer: Any, text: str) -> str:
    if tokenizer.is_fast:
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets = encoded["offset_mapping"]
        return text[: offsets[0][1]] if offsets else ""
    return tokenizer.decode(content_ids(tokenizer, text)[:1])


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
