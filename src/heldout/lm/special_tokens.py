"""Where a tokenizer puts special tokens, and each of them exactly once."""

from typing import Any


def content_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's own tokens, nothing around them."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def special_prefix(tokenizer: Any) -> list[int]:
    """Special tokens that the tokenizer puts before a text, found on a one-letter text."""
    bare = content_ids(tokenizer, "a")
    full = list(tokenizer("a", verbose=False)["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []


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
    ids = content_ids(tokenizer, text)
    adds_space = tokenizer.convert_ids_to_tokens(content_ids(tokenizer, "a"))[0].startswith("▁")
    if adds_space:
        anchor, anchored = content_ids(tokenizer, "\n"), content_ids(tokenizer, "\n" + text)
        if anchored[: len(anchor)] == anchor:
            return anchored[len(anchor) :]
    return ids


def end_of_turn_ids(tokenizer: Any) -> set[int]:
    """Special tokens that may end a turn: all but start, padding and unknown."""
    others = {tokenizer.unk_token_id}
    if tokenizer.bos_token_id != tokenizer.eos_token_id:
        others.add(tokenizer.bos_token_id)
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return (set(tokenizer.all_special_ids) | added) - others
