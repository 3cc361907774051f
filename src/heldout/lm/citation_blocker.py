"""Keep a model from citing its training text: no n-gram of it is ever completed by generation."""

# D documents, N tokens of all documents, G n-grams, C contexts, M forbidden continuations,
# B rows of a batch, T tokens, K context length, R rows whose context is known, V vocabulary

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from heldout.core.errors import UserError
from heldout.core.files import written_whole
from heldout.core.segments import is_written_apart
from heldout.core.token_size import ENGLISH_TOKENS, TokenSize
from heldout.lm.characters import decoded

PUBLISHED_LENGTH = 6  # tokens of English
LAYOUT = "heldout.citation_blocker/1"
_SAMPLED_DOCUMENTS, _SAMPLED_TOKENS = 200, 2000
_ARRAYS = ("tokens", "hashes", "positions", "offsets", "forbidden")


class CitationBlocker(LogitsProcessor):
    """Forbids every token that would complete an n-gram of the training texts.

    For ``model.generate(..., logits_processor=[blocker])``, greedy, sampled or with beams. The
    prompt counts: an n-gram may begin in it. So whatever generated text shares with a training
    text, the end of the prompt included, is at most ``length - 1`` tokens long; only what lies
    wholly in the prompt may be longer. This caps the copied *tokens*: the same words may still
    appear when they are cut into tokens in another way, as at the beginning of a text.

    Where nothing else is left to choose, in a tiny vocabulary or after another processor, the
    scores of that row stay as they are, and ``num_let_through`` counts it: 0 means that the cap
    holds. Padding on the left is text like any other: with a padding token that also begins
    training texts, the tokens after it may be forbidden needlessly, never allowed wrongly.

    It needs the whole text so far. ``generate_batch`` (continuous batching) hands over nothing but
    the latest tokens, and that is refused with a UserError. Costs one hash, one binary search and
    one comparison per row and token, whatever the size of the training set; 4 bytes a training
    token and 28 a distinct n-gram. After arXiv 2412.04318, which uses ``length`` 6 and whole words.
    """

    def __init__(self, length: int, multiplier: int, arrays: dict[str, np.ndarray]):
        """From the arrays that ``of`` builds and ``load`` reads."""
        self.length = length
        self.num_let_through = 0
        self._multiplier = multiplier
        self._arrays = arrays
        self._largest_id = int(arrays["forbidden"].max())
        self._tensors: dict[torch.device, dict[str, torch.Tensor]] = {}

    @classmethod
    def of(
        cls,
        documents: Iterable[Sequence[int]],
        length: int | None = None,
        tokenizer: Any = None,
    ) -> "CitationBlocker":
        """Built from token ids of each training text, as the model was trained on them.

        An n-gram lies within one document. With a ``tokenizer`` a word that has begun may be
        finished, as in the paper, and special tokens such as the end of text are always allowed:
        a copy then has at most ``length - 1`` tokens and the rest of the word it stops in. Without
        one, the cap is exact and special tokens are tokens like any other.

        Without a ``length`` it is 6 tokens of English; with a ``tokenizer`` that hardly knows the
        script of the documents it is as many as hold as much text, since 6 of those are no citation
        but two characters that everyone writes.

        Raises UserError if ``length`` is under 2 or no document is that long.
        """
        parts = [np.asarray(document, dtype=np.int64).reshape(-1) for document in documents]
        if length is None:
            length = _size(parts, tokenizer).tokens(PUBLISHED_LENGTH)
        if isinstance(length, bool) or not isinstance(length, int) or length < 2:
            raise UserError(f"CitationBlocker.of(length=...) must be 2 or more, got {length!r}.")
        tokens_N = np.concatenate([*parts, np.zeros(0, np.int64)])
        if len(tokens_N) and (tokens_N.min() < 0 or tokens_N.max() > np.iinfo(np.int32).max):
            raise UserError(
                "CitationBlocker.of(documents=...): token ids must be 0 or more, got "
                f"{tokens_N.min()} to {tokens_N.max()}: leave out what is none, such as -100."
            )
        starts_G = _ngram_starts([len(part) for part in parts], length)
        next_G = tokens_N[starts_G + length - 1]
        if tokenizer is not None and len(next_G):
            kept_G = ~_always_allowed(tokenizer, int(next_G.max()) + 1)[next_G]
            starts_G, next_G = starts_G[kept_G], next_G[kept_G]
        if not len(starts_G):
            raise UserError(
                f"CitationBlocker.of(length={length}): no document has that many tokens, so there "
                "is nothing to block: give a smaller length or the tokens of the training texts."
            )
        rng = np.random.default_rng(0)
        while True:
            multiplier = int(rng.integers(2**62)) * 2 + 1
            arrays = _index(tokens_N, starts_G, next_G, length - 1, multiplier)
            if arrays is not None:
                return cls(length, multiplier, arrays)

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` (B, V) after ``input_ids`` (B, T), with -inf where a token is forbidden."""
        if input_ids.ndim != 2:
            raise UserError(
                f"CitationBlocker needs the whole text so far, (batch, tokens), got shape "
                f"{tuple(input_ids.shape)}: generate_batch hands over the latest token alone; use "
                "generate."
            )
        if self._largest_id >= scores.shape[1]:
            raise UserError(
                f"CitationBlocker was built from token ids up to {self._largest_id}, the model has "
                f"{scores.shape[1]}: build it with this model's tokenizer."
            )
        num_context = self.length - 1
        if input_ids.shape[1] < num_context:
            return scores
        known = self._on(input_ids.device)
        context_BK = input_ids[:, -num_context:]
        hash_B = (context_BK * known["powers"]).sum(dim=1)
        at_B = torch.searchsorted(known["hashes"], hash_B)
        at_B.clamp_(max=len(known["hashes"]) - 1)
        # The tokens themselves are compared, so a chance collision of hashes forbids nothing.
        same_BK = known["tokens"][known["positions"][at_B][:, None] + known["range"]] == context_BK
        row_R = same_BK.all(dim=1).nonzero()[:, 0]
        if not len(row_R):
            return scores
        at_R = at_B[row_R]
        first_R = known["offsets"][at_R]
        count_R = known["offsets"][at_R + 1] - first_R
        number_M = torch.arange(len(row_R), device=row_R.device).repeat_interleave(count_R)
        within_M = torch.arange(len(number_M), device=row_R.device)
        within_M -= (count_R.cumsum(0) - count_R)[number_M]
        forbidden_M = known["forbidden"][first_R[number_M] + within_M]
        blocked_BV = scores.clone()
        blocked_BV[row_R[number_M], forbidden_M.long()] = -torch.inf
        nothing_left_R = blocked_BV[row_R].amax(dim=1) == -torch.inf
        if nothing_left_R.any():
            row_R = row_R[nothing_left_R]
            self.num_let_through += len(row_R)
            blocked_BV[row_R] = scores[row_R]
        return blocked_BV

    def save(self, path: str | Path) -> None:
        """Write one .npz file, whole or not at all."""
        numbers = {"length": self.length, "multiplier": self._multiplier}
        own = {name: np.array(value) for name, value in {"layout": LAYOUT, **numbers}.items()}
        with written_whole(Path(path)) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **own, **self._arrays)

    @classmethod
    def load(cls, path: str | Path) -> "CitationBlocker":
        """Read what ``save`` wrote; raises UserError for any other file. Nothing is unpickled."""
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["layout"]) != LAYOUT:
                    raise ValueError(f"layout {file['layout']}")
                arrays = {name: file[name] for name in _ARRAYS}
                length, multiplier = int(file["length"]), int(file["multiplier"])
            if not _is_sound(arrays, length):
                raise ValueError("its arrays contradict each other")
        except FileNotFoundError:
            raise UserError(f"CitationBlocker {path}: no such file.") from None
        except Exception as error:  # zip, header and array readers share no exception
            raise UserError(
                f"CitationBlocker {path} is not a file that CitationBlocker.save wrote ({error}): "
                "build it anew with CitationBlocker.of."
            ) from None
        return cls(length, multiplier, arrays)

    def _on(self, device: torch.device) -> dict[str, torch.Tensor]:
        if device not in self._tensors:
            tensors = {name: torch.from_numpy(array) for name, array in self._arrays.items()}
            tensors["powers"] = torch.from_numpy(_powers(self._multiplier, self.length - 1))
            tensors["range"] = torch.arange(self.length - 1)
            self._tensors[device] = {name: t.to(device) for name, t in tensors.items()}
        return self._tensors[device]


def _size(documents: Sequence[np.ndarray], tokenizer: Any) -> TokenSize:
    """Of the first documents, as the tokenizer decodes them; of English without one."""
    if tokenizer is None:
        return ENGLISH_TOKENS
    sampled = [document[:_SAMPLED_TOKENS] for document in documents[:_SAMPLED_DOCUMENTS]]
    texts = [decoded(tokenizer, ids.tolist()) for ids in sampled]
    return TokenSize.of(texts, sum(map(len, sampled)))


def _ngram_starts(lengths: list[int], length: int) -> np.ndarray:
    """Where n-grams begin in the documents laid end to end; none reaches across two."""
    starts, at = [np.zeros(0, np.int64)], 0
    for num_tokens in lengths:
        starts.append(np.arange(at, at + max(0, num_tokens - length + 1)))
        at += num_tokens
    return np.concatenate(starts)


def _index(
    tokens_N: np.ndarray,
    starts_G: np.ndarray,
    next_G: np.ndarray,
    num_context: int,
    multiplier: int,
) -> dict[str, np.ndarray] | None:
    """The arrays of the blocker, or None if two different contexts have one hash."""
    powers_K = _powers(multiplier, num_context)
    hash_G = np.zeros(len(starts_G), np.int64)
    for offset in range(num_context):
        hash_G += tokens_N[starts_G + offset] * powers_K[offset]
    order_G = np.lexsort((next_G, hash_G))
    hash_G, starts_G, next_G = hash_G[order_G], starts_G[order_G], next_G[order_G]
    new_hash_G = np.append(True, hash_G[1:] != hash_G[:-1])
    new_pair_G = np.append(True, new_hash_G[1:] | (next_G[1:] != next_G[:-1]))
    positions_C = starts_G[new_hash_G]
    of_first_G = positions_C[np.cumsum(new_hash_G) - 1]
    for offset in range(num_context):
        if (tokens_N[starts_G + offset] != tokens_N[of_first_G + offset]).any():
            return None
    return {
        "tokens": tokens_N.astype(np.int32),
        "hashes": hash_G[new_hash_G],
        "positions": positions_C,
        "offsets": np.append(np.flatnonzero(new_hash_G[new_pair_G]), new_pair_G.sum()),
        "forbidden": next_G[new_pair_G].astype(np.int32),
    }


def _powers(multiplier: int, num_context: int) -> np.ndarray:
    """Powers of the multiplier modulo 2**64, as signed numbers; torch and numpy wrap alike."""
    powers = [pow(multiplier, number, 2**64) for number in range(1, num_context + 1)]
    return np.array(powers, dtype=np.uint64).view(np.int64)


def _is_sound(arrays: dict[str, np.ndarray], length: int) -> bool:
    tokens, hashes, positions, offsets, forbidden = (arrays[name] for name in _ARRAYS)
    integers = all(a.ndim == 1 and a.dtype.kind == "i" and len(a) for a in arrays.values())
    return (
        integers
        and length >= 2
        and len(positions) == len(hashes) == len(offsets) - 1
        and bool((np.diff(hashes) > 0).all() if len(hashes) > 1 else True)
        and positions.min() >= 0
        and positions.max() + length - 1 <= len(tokens)
        and offsets[0] == 0
        and offsets[-1] == len(forbidden)
        and bool((np.diff(offsets) > 0).all())
        and forbidden.min() >= 0
    )


def _always_allowed(tokenizer: Any, num_ids: int) -> np.ndarray:
    """(V,): special tokens, and tokens that go on with a word instead of beginning one."""
    allowed_V = np.zeros(num_ids, dtype=bool)
    special = [i for i in tokenizer.all_special_ids if i < num_ids]
    allowed_V[special] = True
    # Decoded after another token, since many tokenizers drop the space that begins a text.
    (anchor,) = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    pairs = [[anchor, i] for i in range(min(num_ids, len(tokenizer)))]
    before = len(tokenizer.decode([anchor], clean_up_tokenization_spaces=False))
    texts = tokenizer.batch_decode(pairs, clean_up_tokenization_spaces=False)
    for token_id, text in enumerate(texts):
        allowed_V[token_id] |= _continues_word(text[before : before + 1])
    return allowed_V


def _continues_word(character: str) -> bool:
    """Letters, digits and an apostrophe, of scripts that put spaces between words.

    A fragment of a character counts as a beginning, since it may belong to any script: rather too
    much is blocked than too little.
    """
    if not character.isalnum() and character not in ("'", "’"):
        return False
    return is_written_apart(character)
