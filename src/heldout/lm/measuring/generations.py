"""What a model writes after the beginnings of documents, kept beside what the documents go on with.

The text that people wrote is the control of every figure about generated text.
"""

# P prompts, B sequences in a batch, T tokens

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.pass_statistics import Generations
from heldout.core.row import Row
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.generate import continued_ids
from heldout.lm.measuring.token_nats import token_nats_of
from heldout.lm.nll import context_length
from heldout.lm.special_tokens import (
    content_ids,
    continuation_ids,
    special_prefix,
    without_doubled_start,
)
from heldout.lm.tokenize import IGNORED, Window, prompt_ids

PROMPT_TOKENS = 32
NEW_TOKENS = 96


def generations(
    model: torch.nn.Module,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    num_prompts: int,
    prompt_tokens: int = PROMPT_TOKENS,
    new_tokens: int = NEW_TOKENS,
    batch_size: int = 64,
    decoding: Decoding = GREEDY,
    seed: int = 0,
) -> Generations:
    """Continuations of ``num_prompts`` of the rows, chosen and drawn by ``seed``.

    A text is prompted with its first ``prompt_tokens`` tokens, and a text that is too short for
    prompt and reference with a third of it; a prompt and a conversation are taken whole. Prompts
    and references end with whole characters. Rows that go on for all ``new_tokens`` go first, then
    those that go on longest, and rows that end there are left out, so that two models get the same
    rows. Prompts of one length go together, without padding: greedy text changes with the batch
    size by rounding, so that is recorded. Costs what ``continued_ids`` costs; empty where no row
    can be continued.
    """
    prompts = _prompts(rows, tokenizer, num_prompts, prompt_tokens, new_tokens, seed)
    continued, ended = continued_ids(
        model,
        tokenizer,
        [ids for _, ids, _ in prompts],
        new_tokens,
        batch_size,
        decoding=decoding,
        seed=seed,
    )

    def text(ids: Sequence[int]) -> str:
        return decoded(tokenizer, ids)

    return Generations(
        prompts=[text(ids) for _, ids, _ in prompts],
        texts=[text(ids) for ids in continued],
        references=[text(ids) for _, _, ids in prompts],
        token_ids=[np.array(ids, dtype=np.int32) for ids in continued],
        reference_ids=[np.array(ids, dtype=np.int32) for _, _, ids in prompts],
        ended=np.array(ended, dtype=bool),
        groups=np.array([row.group for row, _, _ in prompts], dtype=str),
        row_index=np.array([row.index for row, _, _ in prompts], dtype=np.int64),
        decoding=decoding.name,
        prompt_ids=[np.array(ids, dtype=np.int32) for _, ids, _ in prompts],
        new_tokens=new_tokens,
        batch_size=batch_size,
    )


def with_nats(
    generated: Sequence[Generations],
    base: torch.nn.Module,
    tokenizer: Any,
    *,
    batch_size: int = 16,
) -> list[Generations]:
    """The same with the loss of every generated and reference token under ``base``, in nats.

    One forward pass over each prompt with its continuation, and one with its reference; where
    several models continued a prompt, what is the same is read once. The base model must have the
    tokenizer that the text was generated with.
    """
    both = [(each, each.token_ids, each.reference_ids) for each in generated]
    prompts = [prompt for each, *texts in both for _ in texts for prompt in each.prompt_ids]
    continued = [ids for _, *texts in both for of_text in texts for ids in of_text]
    found = iter(continuation_nats(base, tokenizer, prompts, continued, batch_size))
    return [
        replace(
            each,
            own_nats=list(islice(found, len(each))),
            reference_nats=list(islice(found, len(each))),
        )
        for each in generated
    ]


def _prompts(
    rows: Sequence[Row],
    tokenizer: Any,
    num_prompts: int,
    prompt_tokens: int,
    new_tokens: int,
    seed: int,
) -> list[tuple[Row, list[int], list[int]]]:
    """Row, prompt and reference of the chosen rows, in the order of the rows."""
    shuffled = random.Random(seed).sample(range(len(rows)), len(rows))
    found: list[tuple[int, list[int], list[int]]] = []
    num_long = 0
    for place in shuffled:
        prompt, after = _prompt(rows[place], tokenizer, prompt_tokens, new_tokens)
        if after:
            found.append((place, prompt, after))
            num_long += len(after) >= new_tokens
        if num_long == num_prompts:
            break
    found.sort(key=lambda item: -min(len(item[2]), new_tokens))  # stable: drawn first stays first
    return [
        (rows[place], prompt, after[: whole_cut(tokenizer, after, new_tokens)])
        for place, prompt, after in sorted(found[:num_prompts], key=lambda item: item[0])
    ]


def _prompt(
    row: Row, tokenizer: Any, prompt_tokens: int, new_tokens: int
) -> tuple[list[int], list[int]]:
    """The prompt, and all that the row goes on with."""
    if row.kind == "text":
        ids = content_ids(tokenizer, row.messages[0]["content"])
        long = len(ids) > prompt_tokens + new_tokens // 2
        cut = prompt_tokens if long else min(prompt_tokens, len(ids) // 3)
        cut = whole_cut(tokenizer, ids, cut)
        prompt = without_doubled_start(special_prefix(tokenizer), ids[:cut])
        return prompt, ids[cut:] if cut else []
    prompt, answer = prompt_ids(row, tokenizer)
    return prompt, continuation_ids(tokenizer, answer)


def continuation_nats(
    model: torch.nn.Module,
    tokenizer: Any,
    prompts_ids: Sequence[np.ndarray],
    continued: Sequence[np.ndarray],
    batch_size: int,
) -> list[np.ndarray]:
    """Loss of each token of each continuation after its prompt, in nats; one forward pass each.

    Prompts are cut at their beginning to what the model can read, down to their last token. Of a
    continuation that even then is too long, the tokens that can be read have a loss. The same
    continuation of the same prompt is read once.
    """
    limit = context_length(model) or 2**31
    places: list[list[int]] = []
    windows: list[Window] = []
    numbers: dict[tuple[bytes, bytes], int] = {}
    for place, (prompt, ids) in enumerate(zip(prompts_ids, continued, strict=True)):
        if not len(ids):
            continue
        both = (prompt.astype(np.int64).tobytes(), ids.astype(np.int64).tobytes())
        if numbers.setdefault(both, len(windows)) < len(windows):
            places[numbers[both]].append(place)
            continue
        before = prompt.tolist()[-max(1, limit - len(ids)) :]
        after = ids.tolist()[: limit - len(before)]
        places.append([place])
        windows.append(Window([*before, *after], [IGNORED] * len(before) + after))
    nats = [np.zeros(0)] * len(continued)
    found = token_nats_of(model, windows, tokenizer, batch_size)
    for alike, of_one in zip(places, found, strict=True):
        for place in alike:
            nats[place] = of_one
    return nats
