"""Held-out contexts, what people and models write after them, and the measures of that text."""

# N texts, T tokens

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import LogitsProcessor, SuppressTokensLogitsProcessor

from heldout.core.decoding import GREEDY, Decoding
from heldout.core.errors import UserError
from heldout.core.recipe import Recipe
from heldout.core.row import Row
from heldout.lm import characters
from heldout.lm.characters import whole_cut
from heldout.lm.generate import continued_ids
from heldout.lm.special_tokens import content_ids, end_of_turn_ids, special_prefix
from heldout.lm.tokenize import IGNORED, Window
from heldout.probes.repetition import (
    compression_ratio,
    diversity,
    repeated_share,
    type_token_ratio,
)


@dataclass(frozen=True)
class Contexts:
    """Beginnings of like length, and equally many tokens each of what people wrote after them."""

    prompts: list[list[int]]
    references: list[list[int]]
    groups: list[str]
    row_index: list[int]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def windows(self) -> list[Window]:
        """Context and human continuation; the continuation is scored."""
        return [
            Window([*prompt, *text], [IGNORED] * len(prompt) + text)
            for prompt, text in zip(self.prompts, self.references, strict=True)
        ]


def contexts_of(
    rows: Sequence[Row], tokenizer: Any, recipe: Recipe, num: int, part: str
) -> Contexts:
    """``num`` pieces of the rows' text, at most one more from a row than from another.

    The piece of a row starts at its first token; where rows are few, further ones follow. Contexts
    end with a whole character, so that some are a few tokens shorter. Rows are taken in an order
    that ``train.seed`` decides, so seeds see other contexts of the same part.
    Raises UserError where the rows hold under 8 pieces.
    """
    before, after = recipe.hyperfit.context_tokens, recipe.hyperfit.new_tokens
    prefix = special_prefix(tokenizer)
    order = np.random.default_rng(recipe.train.seed).permutation(len(rows))
    found: list[tuple[int, int, list[int], list[int]]] = []
    for place in order.tolist():
        ids = content_ids(tokenizer, rows[place].text)
        pieces = _pieces(tokenizer, ids, before, after)
        found += [(number, place, *piece) for number, piece in enumerate(pieces)]
        if sum(number == 0 for number, *_ in found) == num:
            break
    found = sorted(found, key=lambda item: item[0])[:num]
    if len(found) < 8:
        raise UserError(
            f"The {part} rows hold {len(found)} texts of {before + after} tokens "
            "(hyperfit.context_tokens plus hyperfit.new_tokens), and at least 8 are needed: name a "
            f"file of longer texts with --set data.{part}=FILE, or lower hyperfit.new_tokens."
        )
    return Contexts(
        [prefix + context for _, _, context, _ in found],
        [reference for *_, reference in found],
        [rows[place].group for _, place, *_ in found],
        [rows[place].index for _, place, *_ in found],
    )


def _pieces(
    tokenizer: Any, ids: list[int], before: int, after: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Contexts of ``before`` tokens, or fewer to end with whole characters, and ``after`` more."""
    start = 0
    while True:
        cut = start + whole_cut(tokenizer, ids[start:], before)
        if cut + after > len(ids):
            return
        yield ids[start:cut], ids[cut : cut + after]
        start = whole_cut(tokenizer, ids, cut + after)


def write(
    model: Any,
    tokenizer: Any,
    contexts: Contexts,
    recipe: Recipe,
    decoding: Decoding = GREEDY,
    processors: Sequence[LogitsProcessor] = (),
) -> list[list[int]]:
    """Continuations of exactly ``hyperfit.new_tokens`` tokens: none may end earlier.

    Text that ends early would be compared at another length, where every measure of diversity is
    another one.
    """
    ends = sorted({tokenizer.eos_token_id, *end_of_turn_ids(tokenizer)} - {None})
    device = next(model.parameters()).device
    texts, _ = continued_ids(
        model,
        tokenizer,
        contexts.prompts,
        recipe.hyperfit.new_tokens,
        recipe.hyperfit.generation_batch,
        decoding=decoding,
        processors=[SuppressTokensLogitsProcessor(ends, device), *processors],
        seed=recipe.train.seed,
    )
    return texts


def decoded(tokenizer: Any, texts_ids: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token ids, without special tokens and up to their last whole characters."""
    return [characters.decoded(tokenizer, ids) for ids in texts_ids]


@dataclass(frozen=True)
class Measures:
    """Of each text, at one length in tokens; tokens are those of the model's tokenizer."""

    ttr: np.ndarray  # distinct tokens over tokens
    distinct_2: np.ndarray  # distinct pairs of tokens over pairs
    distinct_3: np.ndarray
    repetition: np.ndarray  # share of 4-grams that the text has had before
    diversity: np.ndarray  # product of the shares of distinct 2-, 3- and 4-grams
    compression: np.ndarray  # bytes of the text over its bytes compressed by zlib

    @classmethod
    def of(cls, texts_ids: Sequence[Sequence[int]], texts: Sequence[str]) -> "Measures":
        def each(value: Callable[[Sequence[int]], float]) -> np.ndarray:
            return np.array([value(ids) for ids in texts_ids])

        return cls(
            ttr=each(lambda ids: type_token_ratio(ids, len(ids))),
            distinct_2=each(lambda ids: 1 - repeated_share(ids, 2)),
            distinct_3=each(lambda ids: 1 - repeated_share(ids, 3)),
            repetition=each(lambda ids: repeated_share(ids, 4)),
            diversity=each(diversity),
            compression=np.array([compression_ratio(text) for text in texts]),
        )

    @property
    def compared(self) -> dict[str, np.ndarray]:
        """What the distance to human text is made of."""
        return {name: getattr(self, name) for name in ("ttr", "diversity", "compression")}
