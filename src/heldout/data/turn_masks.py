"""Which turns the data themselves leave out of the loss.

``train``, ``training`` (axolotl), ``loss`` (ms-swift) and ``weight`` (OpenAI, Together) are true or
1 where a turn is learned; ``masked`` (torchtune) is true where it is not. ``mask`` is written both
ways, so the turns that are not the assistant's, which nobody learns, tell which way is meant.
``train_detail`` (axolotl) lists spans of characters; the last character is part of its span.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heldout.core.errors import UserError
from heldout.data.record import type_words

LEARNED_IF_TRUE = ("train", "training", "loss", "weight")
HIDDEN_IF_TRUE = ("masked",)
DETAILS = ("train_detail", "training_detail")


def mask_hides(turns: Sequence[Any], is_assistant: Sequence[bool], where: str) -> bool:
    """Whether ``mask`` says what is hidden (rather than what is learned).

    Raises UserError where the turns do not tell.
    """
    marks = [
        (_flag(turn["mask"], "mask", where), of_assistant)
        for turn, of_assistant in zip(turns, is_assistant, strict=True)
        if isinstance(turn, dict) and turn.get("mask") is not None
    ]
    if not any(of_assistant for _, of_assistant in marks):
        return False
    of_others = {mark for mark, of_assistant in marks if not of_assistant}
    if len(of_others) != 1:
        raise UserError(
            f'{where}: "mask" means hidden in some data and learned in others, and here no turn of '
            'the user tells which: rename the key to "train" (true: learned). Nothing was written.'
        )
    return of_others.pop()


def learned_keys(
    turn: Mapping[str, Any], content: str, name: str, where: str, hides: bool
) -> dict[str, Any]:
    """``train`` false and ``train_detail`` of an assistant's turn, where it is masked."""
    flags = dict.fromkeys(LEARNED_IF_TRUE, True) | dict.fromkeys(HIDDEN_IF_TRUE, False)
    flags["mask"] = not hides
    said = {key: _flag(turn[key], f"{name} {key}", where) for key in flags if key in turn}
    learned = {mark == flags[key] for key, mark in said.items()}
    if len(learned) > 1:
        raise UserError(
            f"{where}: {name} has {' and '.join(said)}, which contradict each other. Nothing was "
            "written."
        )
    if learned == {False}:
        return {"train": False}
    spans = next((turn[key] for key in DETAILS if turn.get(key)), None)
    if spans is None:
        return {}
    found = [_span(span, content, f"{name} train_detail", where) for span in spans]
    return {"train_detail": found} if any(span["train"] for span in found) else {"train": False}


def _flag(value: Any, name: str, where: str) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    got = repr(value) if isinstance(value, str | int | float) else type_words(value)
    raise UserError(
        f"{where}: {name} must be true or false (or 1 or 0), got {got}. Nothing was written."
    )


def _span(span: Any, content: str, name: str, where: str) -> dict[str, Any]:
    keys = ("begin_offset", "end_offset", "train")
    if not isinstance(span, dict) or not all(key in span for key in keys):
        raise UserError(
            f"{where}: {name} must be a list of {{{', '.join(keys)}}}. Nothing was written."
        )
    begin, end = span["begin_offset"], span["end_offset"]
    whole = isinstance(begin, int) and isinstance(end, int)
    if not whole or not 0 <= begin <= end < len(content):
        raise UserError(
            f"{where}: {name} must lie within the {len(content)} characters of the content, "
            f"counted from 0, got {begin!r} to {end!r}. Nothing was written."
        )
    return {"begin_offset": begin, "end_offset": end, "train": _flag(span["train"], name, where)}
