"""Which tokens of a conversation are the assistant's, whatever the chat template looks like.

Every answer is scored once, behind the context that the model sees when it is asked for it: the
earlier messages as the template renders them then. Where a later answer's context holds an earlier
answer as that was rendered, both are scored in one example; else each has an example of its own.
"""

import bisect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heldout.core.errors import UserError
from heldout.core.row import Row, is_learned
from heldout.lm.chat_template import Rendering, marks_answers, rendering
from heldout.lm.special_tokens import content_ids, end_of_turn_ids, with_end

# What templates put before an answer without reasoning: an opening tag and its closing one.
_EMPTY_REASONING = re.compile(
    r"(?:<(\w+)>\s*</\1>|\[(\w+)\]\s*\[/\2\]|<\|START_THINKING\|>\s*<\|END_THINKING\|>"
    r"|<\|channel>thought\s*<channel\|>)\s*"
)
_LONGEST_TAG = 40  # characters from an opening tag to where its closing one begins

Span = tuple[int, int]


@dataclass
class RenderedExample:
    """A text with the characters that are scored."""

    text: str
    spans: list[Span] = field(default_factory=list)
    answer_start: int = 0  # where the last answer begins


@dataclass(frozen=True)
class Example:
    """A sequence of tokens with those that are scored."""

    ids: list[int]
    scored: list[bool]


def rendered_examples(row: Row, tokenizer: Any) -> list[RenderedExample]:
    """The texts of the examples."""
    found: list[RenderedExample] = []
    rendered = rendering(row, tokenizer)
    marked = marks_answers(tokenizer, row)
    checked = 0  # messages that are known to be in the last text
    for place, message in enumerate(row.messages):
        if not is_learned(message):
            continue
        before = rendered.text(place, asks=True)
        if marked:
            text, spans = rendered.generated(place + 1)
        else:
            text = rendered.text(place + 1)
            spans = [(0, len(text))]
        text, spans = _behind_its_question(rendered, place, before, text, spans)
        goes_on = bool(found) and text.startswith(found[-1].text)
        rendered.check(text, place + 1, checked if goes_on else 0)
        checked = place + 1
        start = _answer_start(rendered, place, before, text)
        spans = [(max(a, start), b) for a, b in spans if b > start]
        spans = _detailed(row, place, text, spans)
        if goes_on:
            found[-1] = RenderedExample(text, found[-1].spans + spans, start)
        else:
            found.append(RenderedExample(text, spans, start))
    return found


def prompt_and_answer(row: Row, tokenizer: Any) -> tuple[str, str]:
    """What stands before the last answer as it is trained, and that answer without its end.

    Without an answer it is all messages, with the beginning of one.
    """
    last = max((i for i, message in enumerate(row.messages) if is_learned(message)), default=None)
    if last is None:
        return rendering(row, tokenizer).text(len(row.messages), asks=True), ""
    example = rendered_examples(row, tokenizer)[-1]
    message = row.messages[last]
    answer = message["content"]
    if "reasoning_content" in message or "tool_calls" in message:
        ids = content_ids(tokenizer, example.text[example.answer_start :])
        answer = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return example.text[: example.answer_start], answer


def common_length(first: Sequence, second: Sequence) -> int:
    """How many of their first characters or tokens are the same."""
    lengths = range(min(len(first), len(second)) + 1)
    return bisect.bisect(lengths, False, key=lambda n: first[:n] != second[:n]) - 1


def _behind_its_question(
    rendered: Rendering, place: int, before: str, text: str, spans: list[Span]
) -> tuple[str, list[Span]]:
    """A rendering that ends with an answer, with the context that the model is asked in.

    That is how it begins already, unless the template changes what comes before for the answer's
    sake. A question may open reasoning where the answer has none; it must open nothing else.
    """
    if text.startswith(before):
        return text, spans
    asked = rendered.text(place)
    opening = before.removeprefix(asked) if before.startswith(asked) else ""
    if opening and common_length(before, text) >= len(asked):
        return text, spans
    head, found, answer = text.rpartition(opening) if opening else ("", "", "")
    if not found or rendered.row.messages[place]["content"].strip() not in answer:
        raise UserError(
            f"{rendered.row.place}: the chat template renders what comes before message "
            f"{place + 1} otherwise when it asks for that answer: give the data as prompt and "
            "completion, or mend the template."
        )
    moved = len(before) - len(head) - len(found)
    return before + answer, [
        (max(start + moved, len(before)), end + moved)
        for start, end in spans
        if end + moved > len(before)
    ]


def _answer_start(rendered: Rendering, place: int, before: str, text: str) -> int:
    """Where the answer begins in a rendering that ends with it.

    Behind what asks for it, as far as that is in the rendering, and behind an empty reasoning block
    that the template has put there: both are given at inference.
    """
    start = len(before)
    if not text.startswith(before):
        start = common_length(before, text)
    elif rendered.row.messages[place - 1]["role"] == "tool" and before == rendered.text(place):
        # Nothing asks for the answer behind a tool's result, yet some put the usual header there.
        opening = rendered.opening()
        start += len(opening) if text.startswith(opening, start) else 0
    message = rendered.row.messages[place]
    if "reasoning_content" in message or "</think>" in message["content"]:
        return start
    for block in _EMPTY_REASONING.finditer(text, max(0, start - _LONGEST_TAG)):
        gap = text[start : block.start()]
        if gap.strip():
            break
        if block.end() > start and not message["content"].lstrip().startswith(block[0].strip()):
            return block.end()
    return start


def _detailed(row: Row, place: int, text: str, spans: list[Span]) -> list[Span]:
    """Of the spans of an answer what its ``train_detail`` has learned, and its end."""
    message = row.messages[place]
    if "train_detail" not in message or not spans:
        return spans
    content = message["content"]
    start = text.find(content.strip(), spans[0][0]) - (len(content) - len(content.lstrip()))
    if start < 0:
        raise UserError(
            f"{row.place}: the chat template changes the content of message {place + 1}, so "
            "train_detail cannot be placed in it: leave it out."
        )
    learned = [
        (start + span["begin_offset"], start + span["end_offset"] + 1)
        for span in message["train_detail"]
        if span["train"]
    ]
    learned.append((start + len(content.rstrip()), len(text)))
    return [(max(a, c), min(b, d)) for a, b in learned for c, d in spans if max(a, c) < min(b, d)]


def scored_example(
    row: Row,
    example: RenderedExample,
    ids: list[int],
    offsets: Sequence[Span] | None,
    tokenizer: Any,
) -> Example:
    """The example from the tokens of its text, with an end where the template puts none.

    ``offsets`` are the characters of each token; None where the tokenizer cannot tell them.
    """
    if offsets is None:
        scored = _score_by_prefixes(row, example, ids, tokenizer)
    else:
        scored = _score_by_offsets(example, offsets)
    ends = end_of_turn_ids(tokenizer)
    _settle_ends(ids, scored, ends, tokenizer)
    if not any(scored[i] and ids[i] in ends for i in _last_run(scored)):
        # A template of plain words has no end-of-turn token; without one the model never stops.
        num_ids = len(ids)
        ids = with_end(tokenizer, ids)
        scored += [True] * (len(ids) - num_ids)
    return Example(ids, scored)


def _score_by_offsets(example: RenderedExample, offsets: Sequence[Span]) -> list[bool]:
    """The tokens that hold characters of the spans."""
    starts_N, ends_N = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    scored_N = np.zeros(len(offsets), dtype=bool)
    for span_start, span_end in example.spans:
        scored_N |= (starts_N < span_end) & (ends_N > span_start)
    return scored_N.tolist()


def _score_by_prefixes(
    row: Row, example: RenderedExample, whole: list[int], tokenizer: Any
) -> list[bool]:
    """The same for a tokenizer that cannot tell which characters a token holds."""
    scored = [False] * len(whole)
    for start, end in example.spans:
        before = content_ids(tokenizer, example.text[:start])
        after = content_ids(tokenizer, example.text[:end])
        if after[: len(before)] != before or whole[: len(after)] != after:
            raise UserError(
                f"{row.place}: the tokenizer splits the conversation otherwise where an answer "
                "begins or ends, so the assistant's tokens cannot be told apart: use a fast "
                "tokenizer, or give the data as prompt and completion."
            )
        scored[len(before) : len(after)] = [True] * (len(after) - len(before))
    return scored


def _settle_ends(ids: list[int], scored: list[bool], ends: set[int], tokenizer: Any) -> None:
    """Let every scored run end with its end-of-turn token, in place.

    White space that a template puts after that token is never generated, so it is not scored; an
    end-of-turn token that a template's mask leaves out is.
    """
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
