"""Prompts reworded harmlessly, and with one key fact changed, and how far the answers move.

The changes need no model: typography and spacing that mean nothing, and numbers, dates and names
that mean much, in English and Chinese.
"""

# P prompts, N wordings of one prompt

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import regex
import torch

from heldout.core.prompt_pairs import PromptPairs
from heldout.core.row import Row, is_learned
from heldout.core.segments import HAN
from heldout.lm.characters import decoded, whole_cut
from heldout.lm.generate import continued_ids
from heldout.lm.measuring.generations import PROMPT_TOKENS, continuation_nats
from heldout.lm.special_tokens import content_ids, prompted_ids
from heldout.lm.tokenize import prompt_ids

ANSWER_TOKENS = 24
MOST_REWORDINGS = 4

_WIDE, _NARROW = "，。？！：；（）", ",.?!:;()"
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_NAMES = ("Anna", "Robert", "Clara", "Henry", "Norway", "Peru", "Vienna", "Lagos")
_CHINESE_NAMES = ("王芳", "李强", "陈静", "刘洋", "赵敏")
_NUMBER = regex.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?!\w)|\d+(?=\p{Han})")
_CALENDAR = re.compile(rf"\b(?:{'|'.join((*_MONTHS, *_DAYS))})\b")
# Within a sentence: its first word is capitalized whatever it is.
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b")
_NUMERALS = "一二三四五六七八九十"
_CHINESE_NUMBER = re.compile(rf"[{_NUMERALS}百千万零〇两]+(?=[年月日天岁个人次元米里名位号世两])")
_CHINESE_NAME = regex.compile(
    r"(?<!\p{Han})[王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗]\p{Han}{1,2}"
    r"(?=[说道，是在、]|先生|女士|老师)"
)


def prompt_pairs(
    model: torch.nn.Module,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    num_prompts: int = 32,
    prompt_tokens: int = PROMPT_TOKENS,
    answer_tokens: int = ANSWER_TOKENS,
    batch_size: int = 64,
    seed: int = 0,
    pairs: Sequence[tuple[str, str]] = (),
) -> PromptPairs:
    """Divergences over at most ``num_prompts`` of the rows, those with a key fact first.

    A text is prompted with its first ``prompt_tokens`` tokens; of a conversation the last message
    before the answer is changed. ``pairs`` are prompts of the user, each with a key fact changed,
    and come before the rows. Both depend on the tokenizer and ``seed``, not on the model. Costs
    about 6 answers and 28 short forward passes a prompt, by ``batch_size``.
    """
    chosen = _chosen(rows, tokenizer, num_prompts, prompt_tokens, seed, pairs)
    wordings = [
        [text, *reworded.values(), *([changed] if changed else [])]
        for _, text, reworded, changed in chosen
    ]
    asked = [
        _prompted(row, wording, tokenizer)
        for (row, *_), of_one in zip(chosen, wordings, strict=True)
        for wording in of_one
    ]
    continued, _ = continued_ids(model, tokenizer, asked, answer_tokens, batch_size)
    answers = [np.array(ids, dtype=np.int64) for ids in continued]
    starts = np.append(0, np.cumsum([len(of_one) for of_one in wordings]))
    tests = [
        (start + i, start + j)
        for start, (_, _, reworded, changed) in zip(starts, chosen, strict=False)
        for i, j in _compared(len(reworded), bool(changed))
    ]
    nats = continuation_nats(
        model,
        tokenizer,
        [np.array(asked[prompt]) for prompt, _ in tests],
        [answers[answer] for _, answer in tests],
        batch_size,
    )
    mean_nats = {
        test: float(of_one.mean()) if len(of_one) else float("nan")
        for test, of_one in zip(tests, nats, strict=True)
    }
    posix, harmless, key = [], [], []
    for start, (_, _, reworded, changed) in zip(starts, chosen, strict=False):
        num = 1 + len(reworded)

        def moved(i: int, j: int, start: int = start) -> float:
            return abs(mean_nats[start + i, start + j] - mean_nats[start + j, start + j])

        posix.append(_mean([moved(i, j) for i in range(num) for j in range(num) if i != j]))
        harmless.append(_mean([moved(*pair) for k in range(1, num) for pair in ((0, k), (k, 0))]))
        key.append(_mean([moved(0, num), moved(num, 0)]) if changed else float("nan"))
    return PromptPairs(
        np.array(posix),
        np.array(harmless),
        np.array(key),
        np.array([row.group for row, *_ in chosen], dtype=str),
        np.array([row.index for row, *_ in chosen], dtype=np.int64),
        [text for _, text, _, _ in chosen],
        [reworded for _, _, reworded, _ in chosen],
        [changed for *_, changed in chosen],
    )


def harmless_rewordings(text: str, whole: bool = True) -> dict[str, str]:
    """Changes that mean nothing, by name; only those that change this text.

    ``whole`` says that the text is a request to be answered, not the beginning of a text that goes
    on: only then may its end be changed, or a polite word be put before it.
    """
    chinese = bool(HAN.search(text))
    middle = text.rfind(" ", 0, max(1, len(text) * 2 // 3))
    letter = next((i for i, c in enumerate(text) if c.isalpha()), None)
    found = {
        "a line break before": "\n" + text,
        "a doubled space": text[:middle] + " " + text[middle:] if middle > 0 else text,
        "case of the first letter": (
            text if letter is None else text[:letter] + text[letter].swapcase() + text[letter + 1 :]
        ),
        "straight or curly quotes": _swapped_quotes(text),
    }
    if chinese:
        found["width of punctuation"] = _swapped_width(text)
    if whole:
        found["a space after"] = text + " "
        found["a line break after"] = text + "\n"
        found["end punctuation"] = text[:-1] if text[-1:] in ".?!。？！" else text + "."
        found["a polite word"] = ("请回答：" if chinese else "Please answer: ") + text
    return {name: changed for name, changed in found.items() if changed != text}


def key_fact_changed(text: str, draw: random.Random, names: Sequence[str] = _NAMES) -> str:
    """The text with one number, date or name replaced by another, "" where it has none.

    By patterns, not by understanding: digits, months and weekdays, capitalized words within a
    sentence, and Chinese numerals before a measure word and names after a common surname.
    """
    found = [
        (match, kind)
        for kind, pattern in (
            ("digits", _NUMBER),
            ("calendar", _CALENDAR),
            ("name", _NAME),
            ("numeral", _CHINESE_NUMBER),
            ("chinese_name", _CHINESE_NAME),
        )
        for match in pattern.finditer(text)
        if kind != "name" or not _CALENDAR.fullmatch(match[0])
    ]
    if not found:
        return ""
    match, kind = draw.choice(found)
    return text[: match.start()] + _other(match[0], kind, draw, names) + text[match.end() :]


def _other(fact: str, kind: str, draw: random.Random, names: Sequence[str]) -> str:
    if kind == "digits":
        place = draw.choice([i for i, c in enumerate(fact) if c.isdigit()])
        lead = place == 0 and len(fact) > 1
        digits = [d for d in "0123456789" if d != fact[place] and not (lead and d == "0")]
        return fact[:place] + draw.choice(digits) + fact[place + 1 :]
    if kind == "numeral":
        places = [i for i, c in enumerate(fact) if c in _NUMERALS[:9]]
        if not places:
            return draw.choice([n for n in _NUMERALS[:9] if n != fact])
        place = draw.choice(places)
        others = [n for n in _NUMERALS[:9] if n != fact[place]]
        return fact[:place] + draw.choice(others) + fact[place + 1 :]
    if kind == "calendar":
        of_kind: Sequence[str] = _MONTHS if fact in _MONTHS else _DAYS
    else:
        of_kind = names if kind == "name" else _CHINESE_NAMES
    return draw.choice([other for other in of_kind if other != fact])


def _chosen(
    rows: Sequence[Row],
    tokenizer: Any,
    num_prompts: int,
    prompt_tokens: int,
    seed: int,
    pairs: Sequence[tuple[str, str]],
) -> list[tuple[Row, str, dict[str, str], str]]:
    """Row, prompt text, its rewordings, and the text with a key fact changed or nothing."""
    draw = random.Random(seed)
    found = []
    for number, (text, changed) in enumerate(pairs):
        row = Row(-1 - number, ({"role": "prompt", "content": text},), f"pair {number}")
        found.append((row, text, _some(harmless_rewordings(text), draw), changed))
    texts = []
    for place in draw.sample(range(len(rows)), min(len(rows), 4 * num_prompts)):
        text = _prompt_text(rows[place], tokenizer, prompt_tokens)
        if text.strip():
            texts.append((rows[place], text))
    names = sorted({match for _, text in texts for match in _NAME.findall(text)} | {*_NAMES})
    names = [name for name in names if not _CALENDAR.fullmatch(name)]
    of_rows = [
        (
            row,
            text,
            _some(harmless_rewordings(text, row.kind == "conversation"), draw),
            key_fact_changed(text, draw, names),
        )
        for row, text in texts
    ]
    of_rows.sort(key=lambda item: not item[3])  # stable: with a key fact first
    return [*found, *of_rows][: max(num_prompts, len(found))]


def _some(rewordings: dict[str, str], draw: random.Random) -> dict[str, str]:
    names = sorted(draw.sample(sorted(rewordings), min(MOST_REWORDINGS, len(rewordings))))
    return {name: rewordings[name] for name in names}


def _prompt_text(row: Row, tokenizer: Any, prompt_tokens: int) -> str:
    if row.kind == "text":
        ids = content_ids(tokenizer, row.messages[0]["content"])
        cut = whole_cut(tokenizer, ids, min(prompt_tokens, max(1, len(ids) // 2)))
        return decoded(tokenizer, ids[:cut])
    if row.kind == "completion":
        return row.messages[0]["content"]
    asked = _asked(row)
    return row.messages[asked]["content"] if asked is not None else ""


def _asked(row: Row) -> int | None:
    """The last message before the last answer."""
    answers = [i for i, message in enumerate(row.messages) if is_learned(message)]
    last = answers[-1] if answers else len(row.messages)
    return last - 1 if last else None


def _prompted(row: Row, wording: str, tokenizer: Any) -> list[int]:
    if row.kind != "conversation":
        return prompted_ids(tokenizer, wording)
    asked = _asked(row)
    messages = tuple(
        {**message, "content": wording} if place == asked else message
        for place, message in enumerate(row.messages)
    )
    return prompt_ids(replace(row, messages=messages), tokenizer)[0]


def _compared(num_rewordings: int, has_key: bool) -> list[tuple[int, int]]:
    """(prompt, answer) places that are scored: all harmless ones, and the key fact both ways."""
    num = 1 + num_rewordings
    tests = [(i, j) for i in range(num) for j in range(num)]
    return [*tests, (0, num), (num, 0), (num, num)] if has_key else tests


def _mean(values: list[float]) -> float:
    """Of the numbers among them; a prompt that got an empty answer has none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _swapped_quotes(text: str) -> str:
    if any(quote in text for quote in "’‘“”"):
        return text.translate(str.maketrans("’‘“”", "''\"\""))
    return text.replace("'", "’").replace('"', "”")


def _swapped_width(text: str) -> str:
    if any(mark in text for mark in _WIDE):
        return text.translate(str.maketrans(_WIDE, _NARROW))
    return text.translate(str.maketrans(_NARROW, _WIDE))
