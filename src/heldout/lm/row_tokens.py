"""The tokens of rows, many at a time: each row is tokenized once, as long as memory of it is kept.

A run reads its rows many times: in its checks, for every training, at every evaluation, under every
model. Their tokens depend on row and tokenizer alone, and tokenizers that are loaded anew from
files of the same content are one.
"""

# N tokens of a row

import hashlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from heldout.core.errors import UserError
from heldout.core.row import Row, learned_texts
from heldout.lm.conversation import (
    Example,
    RenderedExample,
    common_length,
    rendered_examples,
    scored_example,
)
from heldout.lm.special_tokens import (
    anchored_text,
    content_ids,
    end_of_turn_ids,
    special_prefix,
    state_of,
    unanchored,
    with_end,
    without_doubled_start,
)

MOST_BYTES = 64 * 2**20  # of tokens that are kept: those of some twelve million
_ROW_BYTES = 640  # of a row, beside its tokens
_MOST_ROWS, _MOST_CHARACTERS = 64, 2**20  # tokenized in one call


@dataclass(frozen=True, slots=True)
class RowTokens:
    """The examples of a row one behind the other, with the UTF-8 bytes of its scored text."""

    ids_N: np.ndarray  # int32
    scored_N: np.ndarray  # bool
    lengths: tuple[int, ...]  # of the examples
    num_bytes: int
    num_repeated: int  # tokens with which an example begins as the one before it does

    @classmethod
    def of(cls, examples: Sequence[Example], num_bytes: int) -> "RowTokens":
        ids = list(itertools.chain.from_iterable(each.ids for each in examples))
        scored = list(itertools.chain.from_iterable(each.scored for each in examples))
        return cls(
            np.array(ids, dtype=np.int32),
            np.array(scored, dtype=bool),
            tuple(len(each.ids) for each in examples),
            num_bytes,
            sum(common_length(a.ids, b.ids) for a, b in itertools.pairwise(examples)),
        )

    def examples(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Token ids of each, and which of them are scored."""
        start = 0
        for length in self.lengths:
            yield self.ids_N[start : start + length], self.scored_N[start : start + length]
            start += length


def with_tokens(rows: Iterable[Row], tokenizer: Any) -> Iterator[tuple[Row, RowTokens]]:
    """Every row with its tokens, in order; reads some dozens of rows ahead.

    Those of a sequence are remembered, which may be read again; those of a stream are not.

    Raises UserError naming the row where the chat template is missing or refuses it.
    """
    remember = isinstance(rows, Sequence)
    for batch in _batches(rows):
        yield from zip(batch, _tokens(batch, tokenizer, remember), strict=True)


def examples_of(row: Row, tokenizer: Any) -> list[Example]:
    """The examples of one row, in the order of their answers; none without an answer."""
    ((_, tokens),) = with_tokens([row], tokenizer)
    return [Example(ids_N.tolist(), scored_N.tolist()) for ids_N, scored_N in tokens.examples()]


def template_end_id(tokenizer: Any) -> int | None:
    """The special token that ends an assistant's turn in the chat template, if there is one."""
    if not tokenizer.chat_template:
        return None
    exchange = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    try:
        example = examples_of(Row(0, exchange, ""), tokenizer)[0]
    except UserError:
        return None
    last = max((i for i, counts in enumerate(example.scored) if counts), default=None)
    ends = end_of_turn_ids(tokenizer)
    return example.ids[last] if last is not None and example.ids[last] in ends else None


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(len(message["content"]) for message in row.messages)
        if len(batch) == _MOST_ROWS or characters >= _MOST_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _tokens(rows: Sequence[Row], tokenizer: Any, remember: bool) -> list[RowTokens]:
    """As they are remembered, else from one call of the tokenizer for all rows."""
    salt = _content_of(tokenizer)
    keys = [_key(row, salt) for row in rows]
    found = {key: tokens for key in keys if (tokens := _MEMORY.get(key)) is not None}
    missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in found}
    if missing:
        new = dict(zip(missing, _tokenized(list(missing.values()), tokenizer), strict=True))
        for key, tokens in new.items() if remember else ():
            _MEMORY.put(key, tokens)
        found |= new
    return [found[key] for key in keys]


# Rows become texts, these tokens, and tokens examples


def _tokenized(rows: Sequence[Row], tokenizer: Any) -> list[RowTokens]:
    rendered = [
        rendered_examples(row, tokenizer) if row.kind == "conversation" else [] for row in rows
    ]
    texts = [_texts(row, examples, tokenizer) for row, examples in zip(rows, rendered, strict=True)]
    encodings = iter(_encoded(tokenizer, list(itertools.chain.from_iterable(texts))))
    return [
        _examples(row, examples, list(itertools.islice(encodings, len(of_row))), tokenizer)
        for row, examples, of_row in zip(rows, rendered, texts, strict=True)
    ]


def _texts(row: Row, rendered: Sequence[RenderedExample], tokenizer: Any) -> list[str]:
    """All that is to be tokenized of a row."""
    if row.kind == "conversation":
        return [example.text for example in rendered]
    contents = [message["content"] for message in row.messages]
    if row.kind == "text":
        return contents
    prompt, completion = contents
    return [prompt, anchored_text(tokenizer, completion)]


@dataclass(frozen=True)
class _Encoded:
    ids: list[int]
    fast: Any  # the encoding of a fast tokenizer; else None

    @property
    def offsets(self) -> list[tuple[int, int]] | None:
        """The characters of each token, where the tokenizer can tell them."""
        return None if self.fast is None else self.fast.offsets


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[_Encoded]:
    if not texts:
        return []
    found = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    fast = found.encodings if tokenizer.is_fast else itertools.repeat(None, len(texts))
    return [_Encoded(list(ids), one) for ids, one in zip(found["input_ids"], fast, strict=True)]


def _examples(
    row: Row, rendered: Sequence[RenderedExample], encoded: Sequence[_Encoded], tokenizer: Any
) -> RowTokens:
    """Token ids of the row, which of them are scored, and the bytes of the scored text."""
    if row.kind == "text":
        text, (one,) = row.messages[0]["content"], encoded
        prefix = special_prefix(tokenizer)
        ids = with_end(tokenizer, without_doubled_start(prefix, one.ids))
        unscored_text = "" if prefix else _first_token_text(tokenizer, text, one)
        scored = [position > 0 for position in range(len(ids))]
        num_bytes = _num_bytes(text) - _num_bytes(unscored_text)
        return RowTokens.of([Example(ids, scored)], num_bytes)
    if row.kind == "completion":
        completion = row.messages[1]["content"]
        prompt_tokens = without_doubled_start(special_prefix(tokenizer), encoded[0].ids)
        answer = with_end(tokenizer, unanchored(tokenizer, completion, encoded[1].ids))
        ids = prompt_tokens + answer
        scored = [position >= max(1, len(prompt_tokens)) for position in range(len(ids))]
        return RowTokens.of([Example(ids, scored)], _num_bytes(completion))
    examples = [
        scored_example(row, example, one.ids, one.offsets, tokenizer)
        for example, one in zip(rendered, encoded, strict=True)
    ]
    for example in examples:
        example.scored[0] = False
    return RowTokens.of(examples, sum(map(_num_bytes, learned_texts(row))))


def _first_token_text(tokenizer: Any, text: str, encoded: _Encoded) -> str:
    if not encoded.ids:
        return ""
    if encoded.fast is None:
        return tokenizer.decode(encoded.ids[:1])
    span = encoded.fast.token_to_chars(0)
    return text[: span[1]] if span else ""


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# What is remembered


class _Memory:
    """The rows that were asked for last, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.num_bytes = 0
        self._rows: OrderedDict[bytes, RowTokens] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> RowTokens | None:
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
            return self._rows.get(key)

    def put(self, key: bytes, tokens: RowTokens) -> None:
        with self._lock:
            if key not in self._rows:
                self._rows[key] = tokens
                self.num_bytes += _size(tokens)
            while self.num_bytes > self.most_bytes:
                _, oldest = self._rows.popitem(last=False)
                self.num_bytes -= _size(oldest)


def _size(tokens: RowTokens) -> int:
    return tokens.ids_N.nbytes + tokens.scored_N.nbytes + _ROW_BYTES


_MEMORY = _Memory(MOST_BYTES)


def _key(row: Row, salt: bytes) -> bytes:
    """Of all that a row's tokens depend on."""
    said = json.dumps([row.messages, row.tools, row.template_arguments], default=repr)
    return hashlib.blake2b(said.encode("ascii"), digest_size=16, salt=salt).digest()


_CONTENTS: WeakKeyDictionary[Any, tuple[tuple, bytes]] = WeakKeyDictionary()
_numbers = itertools.count()


def _content_of(tokenizer: Any) -> bytes:
    """16 bytes that tokenizers share which turn every row into the same tokens."""
    state = state_of(tokenizer)
    known = _CONTENTS.get(tokenizer)
    if known is None or known[0] != state:
        known = _CONTENTS[tokenizer] = state, _digest(tokenizer, state)
    return known[1]


def _digest(tokenizer: Any, state: tuple) -> bytes:
    kind = type(tokenizer)
    content = f"{kind.__module__}.{kind.__qualname__} {state!r} "
    try:
        content_ids(tokenizer, "")  # takes off truncation and padding that a call before has set
        content += tokenizer.backend_tokenizer.to_str()
    except Exception:  # a slow tokenizer has none, and one with parts in Python cannot say
        content += f"number {next(_numbers)}"
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()
