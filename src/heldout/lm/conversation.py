"""Which tokens of a conversation are the assistant's, whatever the chat template looks like."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.special_tokens import content_ids, end_of_turn_ids, with_end

Messages = Sequence[dict[str, str]]

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


def score_conversation(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    messages = list(row.messages)
    if _GENERATION_TAG.search(_template(tokenizer)) and tokenizer.is_fast:
        encoded = _apply_template(
            row, messages, tokenizer, tokenize=True, return_dict=True,
            return_assistant_tokens_mask=True, tokenizer_kwargs={"verbose": False},
        )  # fmt: skip
        ids, scored = list(encoded["input_ids"]), [bool(m) for m in encoded["assistant_masks"]]
    elif tokenizer.is_fast:
        ids, scored = _score_by_text(row, messages, tokenizer)
    else:
        ids, scored = _score_by_tokens(row, messages, tokenizer)
    _settle_ends(ids, scored, tokenizer)
    if messages[-1]["role"] == "assistant" and not any(
        scored[i] and ids[i] in end_of_turn_ids(tokenizer) for i in _last_run(scored)
    ):
        # A template of plain words has no end-of-turn token; without one the model never stops.
        num_ids = len(ids)
        ids = with_end(tokenizer, ids)
        scored += [True] * (len(ids) - num_ids)
    return ids, scored


def template_end_id(tokenizer: Any) -> int | None:
    """The special token that ends an assistant's turn in the chat template, if there is one."""
    if not tokenizer.chat_template:
        return None
    exchange = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    try:
        ids, scored = score_conversation(Row(0, exchange, ""), tokenizer)
    except UserError:
        return None
    last = max((i for i, counts in enumerate(scored) if counts), default=None)
    return ids[last] if last is not None and ids[last] in end_of_turn_ids(tokenizer) else None


def _score_by_text(row: Row, messages: Messages, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Tokenize the rendered conversation once and score tokens that hold assistant characters."""
    whole = render(row, messages, tokenizer)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = render(row, messages[:index], tokenizer, add_generation_prompt=True)
            after = render(row, messages[: index + 1], tokenizer)
            _check_prefix(row, after.startswith(before) and whole.startswith(after), index)
            spans.append((len(before), len(after)))
    scored = [
        any(start < span_end and end > span_start for span_start, span_end in spans)
        for start, end in encoded["offset_mapping"]
    ]
    return list(encoded["input_ids"]), scored


def _score_by_tokens(row: Row, messages: Messages, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """The same for a tokenizer that cannot tell which characters a token holds."""
    whole = content_ids(tokenizer, render(row, messages, tokenizer))
    scored = [False] * len(whole)
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            text = render(row, messages[:index], tokenizer, add_generation_prompt=True)
            before = content_ids(tokenizer, text)
            after = content_ids(tokenizer, render(row, messages[: index + 1], tokenizer))
            agree = after[: len(before)] == before and whole[: len(after)] == after
            _check_prefix(row, agree, index)
            scored[len(before) : len(after)] = [True] * (len(after) - len(before))
    return whole, scored


def _settle_ends(ids: list[int], scored: list[bool], tokenizer: Any) -> None:
    """Let every scored run end with its end-of-turn token, in place.

    White space that a template puts after that token is never generated, so it is not scored; an
    end-of-turn token that a template's mask leaves out is.
    """
    ends = end_of_turn_ids(tokenizer)
    for start, stop in _runs(scored):
        last_end = max((i for i in range(start, stop) if ids[i] in ends), default=None)
        if last_end is not None and not tokenizer.decode(ids[last_end + 1 : stop]).strip():
            scored[last_end + 1 : stop] = [False] * (stop - last_end - 1)
        elif last_end is None and stop < len(ids) and ids[stop] in ends:
            scored[stop] = True


def _runs(scored: list[bool]) -> list[tuple[int, int]]:
    runs, start = [], 0
    for value, group in itertools.groupby(scored):
        stop = start + len(list(group))
        if value:
            runs.append((start, stop))
        start = stop
    return runs


def _last_run(scored: list[bool]) -> range:
    runs = _runs(scored)
    return range(*runs[-1]) if runs else range(0)


def _template(tokenizer: Any) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError:
        raise UserError(
            "The data are conversations, but the tokenizer has no chat template: set "
            "tokenizer.chat_template and save it with the model, or give the data as prompt and "
            "completion."
        ) from None


def render(
    row: Row, messages: Messages, tokenizer: Any, add_generation_prompt: bool = False
) -> str:
    _template(tokenizer)
    return _apply_template(
        row, messages, tokenizer, tokenize=False, add_generation_prompt=add_generation_prompt
    )


def _apply_template(row: Row, messages: Messages, tokenizer: Any, **options: Any) -> Any:
    # jinja2's TemplateError, or whatever a template meets in a message it was not written for.
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except Exception as error:
        raise UserError(
            f"Row {row.index}: the chat template refuses this conversation: {error}"
        ) from error


def _check_prefix(row: Row, holds: bool, index: int) -> None:
    if not holds:
        raise UserError(
            f"Row {row.index}: the chat template changes earlier messages when message {index} is "
            "added, so the assistant's tokens cannot be told apart: mark them with "
            "{% generation %} in the template, or give the data as prompt and completion."
        )
