"""Contextual replacement: a language model chooses other words that fit their place.

At a share ``rate`` of the places where one token is one lower-case word (or Chinese characters),
the model's ``candidates`` likeliest other words are compared by how well the next words follow,
and one is drawn in proportion. What fits need not mean the same: facts can change, so name them in
``data.key_facts``. The base model is asked unless ``model`` names another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

import torch

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.segments import HAN_RUN
from heldout.lm.accelerator import training_device
from heldout.lm.load import load_model
from heldout.lm.nll import context_length, evaluating, model_inputs, window_nats
from heldout.lm.scored_loss import scored_logits
from heldout.lm.special_tokens import special_prefix
from heldout.lm.tokenize import IGNORED, Window

SOURCE = "Kobayashi 2018, arXiv 1805.06201, with a causal model"
COST = "for each of the variants, about 1 + 40 * rate * candidates / 10 forwards, once"

# N places, V vocabulary
BATCH = 8
BEFORE, AFTER = 24, 8  # tokens around a place that candidates are compared in


class Vocabulary(NamedTuple):
    """Tokens that are whole words: their text, and which may stand for one another."""

    words: list[str]  # empty where the token is no word
    kind_V: torch.Tensor  # 0: none; -1: a word after a space; n: n Chinese characters

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> "Vocabulary":
        names = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
        texts = tokenizer.batch_decode([[i] for i in range(len(names))])
        special = set(tokenizer.all_special_ids)
        words, kinds = [""] * size, torch.zeros(size, dtype=torch.long)
        for token, (name, text) in enumerate(zip(names, texts, strict=True)):
            word = text.strip()
            if token in special or name is None:
                continue
            if name[:1] in ("Ġ", "▁", " ") and len(word) > 1 and word.isalpha():
                # A name, or a word of a script without capitals, is left alone.
                if word.islower():
                    words[token], kinds[token] = word, -1
            elif HAN_RUN.fullmatch(word):
                words[token], kinds[token] = word, len(word)
        return cls(words, kinds)


class _Place(NamedTuple):
    text: int  # which text
    position: int  # in its ids
    span: tuple[int, int]  # in its characters


@torch.no_grad()
def replaced_in_context(
    model: Any,
    tokenizer: Any,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    rate: float,
    candidates: int,
    draws: Sequence[Random],
) -> list[str]:
    """``texts`` with a random share ``rate`` of their one-token words replaced.

    One forward over all texts, and ``candidates`` short ones for each place.
    """
    found = list(texts)
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        found[part] = _replaced(
            model, tokenizer, vocabulary, texts[part], rate, candidates, draws[part]
        )
    return found


def _replaced(
    model: Any,
    tokenizer: Any,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    rate: float,
    candidates: int,
    draws: Sequence[Random],
) -> list[str]:
    prefix, limit = special_prefix(tokenizer), context_length(model) or 2**31
    all_ids, places = [], []
    for number, (text, draw) in enumerate(zip(texts, draws, strict=True)):
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = [*prefix, *encoded["input_ids"]][:limit]
        all_ids.append(ids)
        for position in range(max(1, len(prefix)), len(ids)):
            span = encoded["offset_mapping"][position - len(prefix)]
            word = vocabulary.words[ids[position]]
            # Not where the word goes on in the next token.
            whole = text[span[0] : span[1]].strip() == word and (
                vocabulary.kind_V[ids[position]] > 0 or not text[span[1] : span[1] + 1].isalnum()
            )
            if word and whole and draw.random() < rate:
                places.append(_Place(number, position, span))
    if not places:
        return list(texts)
    asked = {(place.text, place.position) for place in places}
    windows = [
        Window(ids, [i if (n, at) in asked else IGNORED for at, i in enumerate(ids)])
        for n, ids in enumerate(all_ids)
    ]
    device = next(model.parameters()).device
    with evaluating(model):
        logits_NV, targets_N = scored_logits(model, model_inputs(model, windows, tokenizer, device))
        kind_V = vocabulary.kind_V.to(device)
        size = min(logits_NV.shape[1], len(kind_V))
        logits_NV, kind_V = logits_NV[:, :size], kind_V[:size]
        other_NV = kind_V[None] != kind_V[targets_N][:, None]
        other_NV.scatter_(1, targets_N[:, None], True)
        top = logits_NV.masked_fill(other_NV, -torch.inf).topk(min(candidates, size), dim=1)
        tried = [
            (n, token)
            for n, (tokens, values) in enumerate(
                zip(top.indices.tolist(), top.values.tolist(), strict=True)
            )
            for token, value in zip(tokens, values, strict=True)
            if value > float("-inf")
        ]
        nats = _candidate_nats(model, tokenizer, all_ids, places, tried)
    return _put_in(texts, vocabulary, places, tried, nats, draws)


def _candidate_nats(
    model: Any,
    tokenizer: Any,
    all_ids: Sequence[list[int]],
    places: Sequence[_Place],
    tried: Sequence[tuple[int, int]],
) -> list[float]:
    """Loss of each candidate (number of its place, token) and of the tokens that follow it."""
    device = next(model.parameters()).device
    windows = []
    for n, token in tried:
        ids, at = all_ids[places[n].text], places[n].position
        first, stop = max(0, at - BEFORE), at + 1 + AFTER
        window = [*ids[first:at], token, *ids[at + 1 : stop]]
        windows.append(
            Window(window, [i if k >= at - first else IGNORED for k, i in enumerate(window)])
        )
    found: list[float] = []
    for start in range(0, len(windows), 8 * BATCH):
        part = windows[start : start + 8 * BATCH]
        found += window_nats(model, model_inputs(model, part, tokenizer, device))
    return found


def _put_in(
    texts: Sequence[str],
    vocabulary: Vocabulary,
    places: Sequence[_Place],
    tried: Sequence[tuple[int, int]],
    nats: Sequence[float],
    draws: Sequence[Random],
) -> list[str]:
    """The texts with one candidate at each place, drawn by how likely it makes its surroundings."""
    options: dict[int, list[tuple[int, float]]] = {}
    for (n, token), loss in zip(tried, nats, strict=True):
        options.setdefault(n, []).append((token, loss))
    chosen = {}
    for n, some in options.items():
        least = min(loss for _, loss in some)
        weights = [2.718281828 ** (least - loss) for _, loss in some]
        (chosen[n],) = draws[places[n].text].choices([token for token, _ in some], weights)
    found = list(texts)
    for n in sorted(chosen, key=lambda n: -places[n].span[0]):  # from the end
        place = places[n]
        start, stop = place.span
        text = found[place.text]
        blank = text[start:stop][: len(text[start:stop]) - len(text[start:stop].lstrip())]
        found[place.text] = text[:start] + blank + vocabulary.words[chosen[n]] + text[stop:]
    return found


@lru_cache(maxsize=1)
def _loaded(name: str) -> tuple[Any, Any]:
    loaded = load_model(name, device=training_device())
    return loaded.model, loaded.tokenizer


@dataclass(frozen=True)
class ContextualWords(Augmentation):
    """Words of the chosen rows are replaced with probability ``rate`` by what fits there."""

    STRENGTH = "rate"
    SLOW = True

    rate: float = 0.15
    candidates: int = 4
    model: str = ""  # folder, Hub id or package:NAME; empty: the base model
    variants: int = field(default=2, kw_only=True)
    _parts: list = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rate", 0 <= self.rate <= 1, "between 0 and 1")
        self.require("candidates", self.candidates >= 1, "1 or more")

    def prepare(self, supplies: Supplies) -> None:
        model, tokenizer = _loaded(self.model) if self.model else supplies.base()
        self.require("model", tokenizer.is_fast, "one with a fast tokenizer (tokenizer.json)")
        size = model.get_output_embeddings().weight.shape[0]
        self._parts[:] = model, tokenizer, Vocabulary.of(tokenizer, size)

    def texts(self, contents: Sequence[str], draws: Sequence[Random]) -> list[str]:
        model, tokenizer, vocabulary = self._parts
        return replaced_in_context(
            model, tokenizer, vocabulary, contents, self.now("rate"), self.candidates, draws
        )
