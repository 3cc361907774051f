"""Rows are tokenized once, many in a call, and never from what was known of another tokenizer."""

import copy
import itertools

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from heldout.core.row import Row
from heldout.lm import row_tokens
from heldout.lm.tokenize import tokenize_row, tokenize_rows
from heldout.training.windows import WindowDataset

CONVERSATION = ("user", "assistant") * 2


def rows_of_all_kinds(texts):
    rows = []
    for index, text in enumerate(texts):
        third = len(text) // 3
        pieces = [text[:third], text[third : 2 * third], text[2 * third :]]
        for roles in (("text",), ("prompt", "completion"), CONVERSATION):
            said = zip(roles, [text] if roles == ("text",) else itertools.cycle(pieces))  # noqa: B905
            messages = tuple({"role": role, "content": content} for role, content in said)
            rows.append(Row(index, messages, str(index)))
    return rows


@pytest.fixture
def rows(english_text):
    texts = [english_text[start : start + 50 + start % 230] for start in range(0, 4000, 97)]
    return rows_of_all_kinds([*texts, "", "größer 好", "\n", "<|im_start|>a"])


@pytest.fixture
def memory(monkeypatch):
    """Nothing is known yet; the fixture's value makes an empty memory of so many bytes."""

    def of(most_bytes):
        monkeypatch.setattr(row_tokens, "_MEMORY", row_tokens._Memory(most_bytes))
        return row_tokens._MEMORY

    of(row_tokens.MOST_BYTES)
    return of


@pytest.fixture
def texts_tokenized(monkeypatch):
    """Every text that any tokenizer is called with."""
    seen = []
    call = PreTrainedTokenizerBase.__call__

    def counted(self, text=None, *args, **kwargs):
        seen.extend(text if isinstance(text, list) else [text])
        return call(self, text, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", counted)
    return seen


def windows_of(rows, tokenizer, max_length=60):
    return [tokenized for _, tokenized in tokenize_rows(rows, tokenizer, max_length)]


def test_rows_together_have_the_tokens_that_each_has_alone(tiny_tokenizer, rows, memory):
    memory(0)
    alone = [tokenize_row(row, tiny_tokenizer, 60) for row in rows]
    assert windows_of(rows, tiny_tokenizer) == alone
    memory(row_tokens.MOST_BYTES)
    assert windows_of(rows, tiny_tokenizer) == alone
    assert windows_of(rows, tiny_tokenizer) == alone  # from memory


def test_a_row_is_tokenized_once_for_all_trainings_and_windows(
    tiny_model_dir, rows, memory, texts_tokenized
):
    rows = [row for row in rows if row.kind != "conversation"]
    for max_length in (60, 1000):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)  # another object each time
        WindowDataset(rows, tokenizer, max_length)
    named = {message["content"] for row in rows for message in row.messages}
    of_rows = [text for text in texts_tokenized if text in named and len(text) > 1]
    assert len(of_rows) == len(set(of_rows))
    assert len(texts_tokenized) < 2 * len(rows) + 20


def test_a_tokenizer_that_was_changed_is_another(tiny_tokenizer, rows, memory):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    plain = windows_of(rows, tokenizer)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|endoftext|>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|endoftext|>",
        special_tokens=[("<|im_start|>", start), ("<|endoftext|>", end)],
    )
    started = windows_of(rows, tokenizer)
    assert all(
        each.windows[0].input_ids[0] == start
        for row, each in zip(rows, started, strict=True)
        if row.kind == "text"
    )
    assert windows_of(rows, tiny_tokenizer) == plain
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}|{% endfor %}"
    talk = [row for row in rows if row.kind == "conversation" and row.text.strip()]
    assert "|" in tokenizer.decode(windows_of(talk, tokenizer)[0].windows[0].input_ids)


def test_memory_is_bounded_and_forgets_what_was_asked_for_longest_ago(
    tiny_tokenizer, rows, memory, texts_tokenized
):
    small = memory(8_000)
    WindowDataset(rows, tiny_tokenizer, 1000)
    assert 0 < small.num_bytes <= 8_000
    texts_tokenized.clear()
    tokenize_row(rows[-1], tiny_tokenizer, 1000)
    assert rows[-1].messages[0]["content"] not in texts_tokenized
    tokenize_row(rows[0], tiny_tokenizer, 1000)
    assert rows[0].messages[0]["content"] in texts_tokenized


def test_a_stream_of_rows_is_read_as_it_is_needed(tiny_tokenizer, memory):
    taken = 0

    def stream():
        nonlocal taken
        for index in itertools.count():
            taken += 1
            yield Row(index, ({"role": "text", "content": f"row {index}"},), "a")

    found = tokenize_rows(stream(), tiny_tokenizer, 100)
    assert next(found)[0].index == 0
    assert taken <= 64
    assert [row.index for row, _ in itertools.islice(found, 200)] == list(range(1, 201))
