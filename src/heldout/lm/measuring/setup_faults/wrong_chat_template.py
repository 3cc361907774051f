"""The model was trained on prompts in another format than the one in use."""

# T tokens of one answer

import itertools
from typing import Any

import numpy as np
import torch

from heldout.core.facts import SetupFault
from heldout.core.row import Row
from heldout.core.stats import LEAST_TO_RESAMPLE, RatioEstimate, ratio_estimate
from heldout.lm.measuring.prompt_formats import FORMATS, prompt_of
from heldout.lm.measuring.setup_faults.model_pair import ModelPair, change_in_words
from heldout.lm.special_tokens import continuation_ids, end_of_turn_ids, prompted_ids
from heldout.lm.tokenize import IGNORED, Window, prompt_ids, tokenize_row

NAME = "wrong_chat_template"
SCREENED_ROWS = 8  # by which formats are left out that do not fit at all
UNCUT = 10**6  # tokens, of a row that is to stay in one window
LEAST_FORMAT_GAIN = 0.01  # nats/token: a collapsed model reads all formats alike


def wrong_chat_template(pair: ModelPair) -> SetupFault:
    """Whether another common format of prompts fits the model better than the one in use."""
    rows = [row for row in pair.train if row.kind != "text"]
    if not rows:
        return SetupFault(NAME, "absent", "The rows are plain texts, which have no chat template.")
    rows = [row for row in rows if prompt_ids(row, pair.tokenizer)[1].strip()]
    if len({row.group for row in rows}) < LEAST_TO_RESAMPLE:
        return SetupFault(NAME, "unknown", "Too few training rows end with an answer.")
    in_use = "the chat template" if rows[0].kind == "conversation" else "the prompt as it stands"
    screened = rows[:SCREENED_ROWS]
    likeliest = _likeliest_format(pair, screened)
    if not likeliest:
        return SetupFault(
            NAME,
            "absent",
            f"Answers are likeliest after {in_use}: none of {len(FORMATS)} other formats fits "
            f"better on {len(screened)} training rows.",
        )
    after = _saved(pair, pair.model, rows, likeliest)
    evidence = (
        f"Written as {likeliest} instead of {in_use}, the loss of the answers of {len(rows)} "
        f"training rows {change_in_words(after)} nats/token."
    )
    if after.interval.low <= 0:
        return SetupFault(NAME, "absent", evidence)
    if pair.base is None:
        return SetupFault(
            NAME, "unknown", f"{evidence} Without the base it is unknown what it did before."
        )
    before = _saved(pair, pair.base, rows, likeliest)
    evidence += f" Under the base model it {change_in_words(before)}."
    if after.interval.low > max(LEAST_FORMAT_GAIN, before.interval.high):
        remedy = (
            f"Use the model with the format it was trained on ({likeliest}), or train it with the "
            "template of its tokenizer: tokenizer.apply_chat_template."
        )
        return SetupFault(NAME, "found", evidence, remedy)
    return SetupFault(NAME, "absent", evidence)


def _likeliest_format(pair: ModelPair, rows: list[Row]) -> str:
    """The format after which the answers are likeliest; "" where that is the one in use."""
    totals = {
        name: sum(nats_T.sum() for nats_T in _answer_nats(pair, pair.model, rows, name))
        for name in ("", *FORMATS)  # of equal ones the first
    }
    return min(totals, key=lambda name: totals[name])


def _saved(
    pair: ModelPair, model: torch.nn.Module, rows: list[Row], format_name: str
) -> RatioEstimate:
    """Loss of the answers in the format in use minus that in another, per token of the former."""
    own, other = _answer_nats(pair, model, rows), _answer_nats(pair, model, rows, format_name)
    sums = [own_T.sum() - other_T.sum() for own_T, other_T in zip(own, other, strict=True)]
    sizes = [len(own_T) for own_T in own]
    return ratio_estimate(sums, sizes, [row.group for row in rows], signed=True)


def _answer_nats(
    pair: ModelPair, model: torch.nn.Module, rows: list[Row], format_name: str = ""
) -> list[np.ndarray]:
    """(T,) losses of the last answer of each row, in a format or, unnamed, in the one in use."""
    return pair.nats(model, [_answer_window(pair, row, format_name) for row in rows])


def _answer_window(pair: ModelPair, row: Row, format_name: str) -> Window:
    """The last answer, which is scored, behind what comes before it."""
    context, answer = _answered(row, pair.tokenizer)
    # Of a long answer the same tokens are left out in every format, at its end.
    left_out = max(0, len(answer) - pair.max_length // 2)
    if format_name:
        context = prompted_ids(pair.tokenizer, prompt_of(row, FORMATS[format_name]))
        answer = continuation_ids(pair.tokenizer, prompt_ids(row, pair.tokenizer)[1])
    answer = answer[: len(answer) - left_out]
    context = context[-(pair.max_length - len(answer)) :]
    return Window(context + answer, [IGNORED] * len(context) + answer)


def _answered(row: Row, tokenizer: Any) -> tuple[list[int], list[int]]:
    """What comes before the last answer, and its tokens as they are trained, without the end."""
    context, text = prompt_ids(row, tokenizer)
    windows = tokenize_row(row, tokenizer, UNCUT).windows
    if not windows or windows[-1].input_ids[: len(context)] != context:
        return context, continuation_ids(tokenizer, text)
    ends = {tokenizer.eos_token_id} | end_of_turn_ids(tokenizer)
    answer = itertools.takewhile(
        lambda label: label != IGNORED and label not in ends, windows[-1].labels[len(context) :]
    )
    return context, list(answer)
