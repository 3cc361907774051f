"""Rows that begin with the same turns, or give the same long answer: together unless boilerplate.

A prompt is all that stands before an answer, in a conversation before and after each of them. Rows
with one prompt are together unless more than 5 % of the different rows have it (no fewer than 10,
no more than 100): then it is an instruction. Rows with the same answer of 13 tokens or more are
together unless 10 different rows or more give it.
"""

# K keys of turns

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heldout.core.characters import token_texts
from heldout.core.row import Row, is_learned, said
from heldout.core.segments import folded
from heldout.data.pairs import BOILERPLATE_SPAN_ROWS
from heldout.data.shingles import CONTAINED

PROMPT_SHARE = 0.05  # of the different rows, beyond which a prompt is an instruction
FEWEST_ROWS, MOST_ROWS = 10, 100  # that the share comes to
PROMPT, ANSWER = 0, 1
_FEW_CHARACTERS = 400  # at the beginning of an answer, which tell whether it has 13 tokens

Turn = tuple[bool, str]  # whether the model is to learn it, and its text


@dataclass(frozen=True)
class TurnKeys:
    """Of the rows of an index."""

    hashes_K: np.ndarray  # uint64
    rows_K: np.ndarray  # position of the row
    kinds_K: np.ndarray  # PROMPT or ANSWER

    def of_rows(self, place_R: np.ndarray) -> "TurnKeys":
        """Those of some rows, which are at other positions then; -1 for rows that are not there."""
        rows_K = place_R[self.rows_K] if len(self.rows_K) else self.rows_K
        kept = rows_K >= 0
        return TurnKeys(self.hashes_K[kept], rows_K[kept], self.kinds_K[kept])


@dataclass(frozen=True)
class SharedTurn:
    """A prompt or answer of several different texts, by their positions."""

    kind: Literal["prompt", "answer"]
    texts: list[int]


def turns_of(row: Row) -> tuple[Turn, ...]:
    """The turns of a row with a prompt; none of a plain text."""
    if row.kind == "text":
        return ()
    return tuple((is_learned(message), said(message)) for message in row.messages)


def turn_keys(turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """(kind, hash) of the prompts and long answers of a row."""
    found: list[tuple[int, int]] = []
    before = b""  # a hash of all turns so far; empty where they hold no text
    for is_answer, text in turns:
        plain = folded(text)
        if is_answer:
            if before:
                found.append((PROMPT, _number(before)))
            (tokens,) = token_texts([plain[:_FEW_CHARACTERS]])
            if tokens.count(" ") + 1 >= CONTAINED:
                found.append((ANSWER, _number(_digest(b"", plain))))
        if before or (plain and not is_answer):
            before = _digest(before, plain)
            if is_answer:
                found.append((PROMPT, _number(before)))
    return found


def _digest(before: bytes, text: str) -> bytes:
    words = before + b"\0" + text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(words, digest_size=8).digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def most_rows(num_texts: int) -> tuple[int, int]:
    """Different rows that a prompt and a long answer may stand in and still join them."""
    prompt = min(MOST_ROWS, max(FEWEST_ROWS, int(PROMPT_SHARE * num_texts)))
    return prompt, BOILERPLATE_SPAN_ROWS - 1


def shared_turns(
    keys: TurnKeys, first_R: np.ndarray, label_R: np.ndarray
) -> tuple[list[SharedTurn], list[SharedTurn]]:
    """What joins texts, and what is boilerplate: its first text stands for it.

    ``first_R`` is the first row with the same text, ``label_R`` the cluster of near duplicates of
    each text. What only texts of one cluster share is not told.
    """
    most = most_rows(int((first_R == np.arange(len(first_R))).sum()))
    texts_K = first_R[keys.rows_K]
    order = np.lexsort((texts_K, keys.hashes_K, keys.kinds_K))
    kinds, hashes, texts = keys.kinds_K[order], keys.hashes_K[order], texts_K[order]
    if not len(order):
        return [], []
    new = np.concatenate(([True], (kinds[1:] != kinds[:-1]) | (hashes[1:] != hashes[:-1])))
    once = new | np.concatenate(([True], texts[1:] != texts[:-1]))
    kinds, texts, new = kinds[once], texts[once], new[once]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(texts)))
    joined: list[SharedTurn] = []
    usual: list[SharedTurn] = []
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        members = texts[start : start + size]
        if (label_R[members] == label_R[members[0]]).all():
            continue
        kind: Literal["prompt", "answer"] = "answer" if kinds[start] == ANSWER else "prompt"
        few = size <= most[kinds[start]]
        (joined if few else usual).append(SharedTurn(kind, members.tolist()))
    return joined, usual
