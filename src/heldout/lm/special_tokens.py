"""Where a tokenizer puts special tokens, and each of them exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary


def content_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's own tokens, nothing around them."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def special_prefix(tokenizer: Any) -> list[int]:
    """Special tokens that the tokenizer puts before a text, found on a one-letter text."""
    return list(_habits(tokenizer).prefix)


def without_doubled_start(prefix: list[int], content: list[int]) -> list[int]:
    """Join them once where the text itself already begins with the start token."""
    if prefix and content[: len(prefix)] == prefix:
        return list(content)
    return prefix + content


def prompted_ids(tokenizer: Any, text: str) -> list[int]:
    """A prompt as at generation: with the start token if the tokenizer has one, with no end."""
    return without_doubled_start(special_prefix(tokenizer), content_ids(tokenizer, text))


def with_end(tokenizer: Any, ids: list[int]) -> list[int]:
    """The tokens followed by end-of-text, once; unchanged if the tokenizer has no such token."""
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def continuation_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text that follows another one.

    SentencePiece tokenizers put a space before a text, which is wrong in mid-line; behind a line
    break they do not, so the text is tokenized there and the break is taken off again.
    """
    return unanchored(tokenizer, text, content_ids(tokenizer, anchored_text(tokenizer, text)))


def anchored_text(tokenizer: Any, text: str) -> str:
    """What to tokenize for ``continuation_ids``; ``unanchored`` takes the anchor off its tokens."""
    return "\n" + text if _habits(tokenizer).anchor else text


def unanchored(tokenizer: Any, text: str, ids: Sequence[int]) -> list[int]:
    """Tokens of a continuation from those of its ``anchored_text``."""
    anchor = _habits(tokenizer).anchor
    if list(ids[: len(anchor)]) == list(anchor):
        return list(ids[len(anchor) :])
    return content_ids(tokenizer, text)


def end_of_turn_ids(tokenizer: Any) -> set[int]:
    """Special tokens that may end a turn: all but start, padding and unknown."""
    return set(_habits(tokenizer).ends)


def state_of(tokenizer: Any) -> tuple:
    """What of a tokenizer a caller may change in place, short of its vocabulary.

    Costs some twenty microseconds, which is less than a call of it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [getattr(backend, name, None) for name in _PARTS]
    return (
        len(tokenizer),
        repr(tokenizer.special_tokens_map),
        repr(tokenizer.chat_template),
        *(getattr(tokenizer, name, None) for name in _SWITCHES),
        *(None if part is None else _content(part) for part in parts),
    )


_PARTS = ("normalizer", "pre_tokenizer", "post_processor")
_SWITCHES = ("add_bos_token", "add_eos_token", "split_special_tokens")


def _content(part: Any) -> bytes | None:
    try:
        return part.__getstate__()
    except Exception:  # written in Python, which cannot say
        return None


@dataclass(frozen=True)
class _Habits:
    """What a tokenizer does to every text."""

    prefix: tuple[int, ...]
    anchor: tuple[int, ...]  # a line break; empty where no space is put before a text
    ends: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> "_Habits":
        bare = content_ids(tokenizer, "a")
        full = list(tokenizer("a", verbose=False)["input_ids"])
        starts = range(len(full) - len(bare) + 1)
        start = next((i for i in starts if full[i : i + len(bare)] == bare), 0)
        adds_space = tokenizer.convert_ids_to_tokens(bare)[0].startswith("▁")
        anchor = content_ids(tokenizer, "\n") if adds_space else []
        return cls(tuple(full[:start]), tuple(anchor), frozenset(_ends(tokenizer)))


_KNOWN: WeakKeyDictionary[Any, tuple[tuple, _Habits]] = WeakKeyDictionary()


def _habits(tokenizer: Any) -> _Habits:
    """Found once, and again where the tokenizer was changed since."""
    state = state_of(tokenizer)
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != state:
        known = _KNOWN[tokenizer] = state, _Habits.of(tokenizer)
    return known[1]


def _ends(tokenizer: Any) -> set[int]:
    others = {tokenizer.unk_token_id}
    if tokenizer.bos_token_id != tokenizer.eos_token_id:
        others.add(tokenizer.bos_token_id)
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return (set(tokenizer.all_special_ids) | added) - others
