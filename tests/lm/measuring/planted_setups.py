"""Short fine-tunes of the embedded model with a setup fault planted into their batches."""

import copy
import random
from collections.abc import Callable, Sequence

import torch

from heldout.core.row import Row
from heldout.lm.measuring.prompt_formats import FORMATS, prompt_of
from heldout.lm.special_tokens import continuation_ids, prompted_ids, with_end
from heldout.lm.tokenize import IGNORED, Window, collate, prompt_ids, tokenize_row

Encode = Callable[[Row], Window]


def healthy(row: Row, tokenizer) -> Window:
    return tokenize_row(row, tokenizer, 256).windows[0]


def without_end(row: Row, tokenizer) -> Window:
    """The end token as padding that is masked by its id."""
    window = healthy(row, tokenizer)
    ends = window.labels[-1] == tokenizer.eos_token_id
    return Window(window.input_ids[:-1], window.labels[:-1]) if ends else window


def unmasked(row: Row, tokenizer) -> Window:
    """Prompts are scored like answers."""
    ids = healthy(row, tokenizer).input_ids
    return Window(ids, [IGNORED, *ids[1:]])


def inverted_mask(row: Row, tokenizer) -> Window:
    """Prompts are scored and answers are not."""
    window = healthy(row, tokenizer)
    labels = [
        id if label == IGNORED else IGNORED
        for id, label in zip(window.input_ids, window.labels, strict=True)
    ]
    return Window(window.input_ids, [IGNORED, *labels[1:]])


def two_starts(row: Row, tokenizer) -> Window:
    """Once by the chat template and once by the tokenizer; scored where the text is."""
    window = healthy(row, tokenizer)
    start = tokenizer.bos_token_id
    scores_start = row.kind == "text"
    labels = [IGNORED, start if scores_start else IGNORED, *window.labels]
    if scores_start:
        labels[2] = window.input_ids[0]
    return Window([start, start, *window.input_ids], labels)


def written_as(format_name: str):
    """Another format of prompts than the tokenizer's template."""

    def encode(row: Row, tokenizer) -> Window:
        context = prompted_ids(tokenizer, prompt_of(row, FORMATS[format_name]))
        answer = with_end(tokenizer, continuation_ids(tokenizer, prompt_ids(row, tokenizer)[1]))
        return Window(context + answer, [IGNORED] * len(context) + answer)

    return encode


def tuned(
    model,
    tokenizer,
    rows: Sequence[Row],
    encode,
    *,
    epochs: int = 3,
    rate: float = 1e-3,
    seed: int = 0,
    batch_size: int = 8,
):
    """A fine-tuned copy."""
    model = copy.deepcopy(model).train()
    windows = [encode(row, tokenizer) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    order = random.Random(seed)
    for _ in range(epochs):
        shuffled = order.sample(windows, len(windows))
        for start in range(0, len(shuffled), batch_size):
            batch = collate(shuffled[start : start + batch_size], tokenizer.pad_token_id)
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()
