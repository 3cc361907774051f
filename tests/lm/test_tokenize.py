"""Every scored token exactly once, nothing lost, nothing doubled."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.tokenize import IGNORED, Window, collate, prompt_ids, tokenize_row

WHOLE = 10_000


def text_row(text):
    return Row(0, ({"role": "text", "content": text},), "g")


def completion_row(prompt, completion):
    messages = (
        {"role": "prompt", "content": prompt},
        {"role": "completion", "content": completion},
    )
    return Row(0, messages, "g")


def conversation_row(*contents):
    roles = ("user", "assistant") * len(contents)
    pairs = zip(roles, contents, strict=False)
    return Row(7, tuple({"role": role, "content": content} for role, content in pairs), "g")


@pytest.fixture(scope="session")
def bos_tokenizer(tiny_tokenizer):
    """One that puts a start token before and an end token after every text."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.bos_token = "<|im_start|>"
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|endoftext|>",
        special_tokens=[("<|im_start|>", start), ("<|endoftext|>", end)],
    )
    return tokenizer


def scored_ids(tokenized):
    return [i for window in tokenized.windows for i in window.labels if i != IGNORED]


def test_text_scores_all_but_the_first_token_and_ends_once(tiny_tokenizer):
    tokenized = tokenize_row(text_row("the first line"), tiny_tokenizer, WHOLE)
    (window,) = tokenized.windows
    assert tiny_tokenizer.decode(window.input_ids) == "the first line<|endoftext|>"
    assert window.labels == [IGNORED, *window.input_ids[1:]]
    first = tiny_tokenizer.decode(window.input_ids[:1])
    assert tokenized.num_bytes == len("the first line") - len(first)
    assert tokenized.num_tokens == len(window.input_ids) - 1


@pytest.mark.parametrize("text", ["<|im_start|>hello", "hello<|endoftext|>", "hello"])
def test_start_and_end_tokens_are_not_doubled(bos_tokenizer, text):
    tokenized = tokenize_row(text_row(text), bos_tokenizer, WHOLE)
    assert bos_tokenizer.decode(tokenized.windows[0].input_ids) == "<|im_start|>hello<|endoftext|>"


def test_bytes_of_a_text_behind_a_start_token_are_all_counted(bos_tokenizer):
    assert tokenize_row(text_row("größer 好"), bos_tokenizer, WHOLE).num_bytes == 12


def test_completion_is_tokenized_on_its_own_and_scored_with_its_end(bos_tokenizer):
    tokenizer = bos_tokenizer
    prompt, completion = "Question: th", "e answer"
    (window,) = tokenize_row(completion_row(prompt, completion), tokenizer, WHOLE).windows
    alone = tokenizer(completion, add_special_tokens=False)["input_ids"]
    scored = [i for i in window.labels if i != IGNORED]
    assert scored == [*alone, tokenizer.eos_token_id]
    assert tokenizer.decode(window.input_ids[: -len(scored)]) == "<|im_start|>Question: th"
    tokens, reference = prompt_ids(completion_row(prompt, completion), tokenizer)
    assert tokens == window.input_ids[: -len(scored)]
    assert reference == completion


def test_empty_prompt_without_start_token_leaves_the_first_token_unscored(tiny_tokenizer):
    tokenized = tokenize_row(completion_row("", "answer"), tiny_tokenizer, WHOLE)
    assert tokenized.windows[0].labels[0] == IGNORED


def test_sentencepiece_space_is_not_put_into_the_middle_of_a_line():
    """As Llama 2 does: the space before a text must not come before a completion."""
    pieces = ["<unk>", "<s>", "</s>", "▁", "<0x0A>", "y", "e", "s", "▁yes", "yes", "a", "▁a"]
    merges = [("y", "e"), ("ye", "s"), ("▁", "yes"), ("▁", "a")]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "ye"])}
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    (window,) = tokenize_row(completion_row("a", "yes"), tokenizer, WHOLE).windows
    assert tokenizer.convert_ids_to_tokens(window.input_ids) == ["▁a", "yes", "</s>"]
    (window,) = tokenize_row(completion_row("a", " yes"), tokenizer, WHOLE).windows
    assert tokenizer.convert_ids_to_tokens(window.input_ids) == ["▁a", "▁yes", "</s>"]


words = st.text(st.sampled_from("ab \nthe é好<|>"), max_size=120)


@settings(max_examples=80, deadline=None)
@given(st.lists(words, min_size=1, max_size=5), st.integers(2, 40))
def test_windows_score_each_token_once(tiny_tokenizer, contents, max_length):
    rows = [text_row(contents[0]), conversation_row(*contents)]
    if len(contents) > 1:
        rows.append(completion_row(*contents[:2]))
    for row in rows:
        whole = tokenize_row(row, tiny_tokenizer, WHOLE)
        cut = tokenize_row(row, tiny_tokenizer, max_length)
        assert (cut.num_tokens, cut.num_bytes) == (whole.num_tokens, whole.num_bytes)
        assert scored_ids(cut) == scored_ids(whole)
        assert len(scored_ids(cut)) == cut.num_tokens
        for window in cut.windows:
            assert len(window.input_ids) == len(window.labels) <= max_length
            assert window.labels[0] == IGNORED
            assert any(label != IGNORED for label in window.labels)


def test_windows_of_a_text_overlap_by_one_token_and_rejoin(tiny_tokenizer, english_text):
    row = text_row(english_text[:3000])
    (whole,) = tokenize_row(row, tiny_tokenizer, WHOLE).windows
    windows = tokenize_row(row, tiny_tokenizer, 100).windows
    assert len(windows) > 5
    joined = list(windows[0].input_ids)
    for window in windows[1:]:
        assert window.input_ids[0] == joined[-1]
        joined += window.input_ids[1:]
    assert joined == whole.input_ids
    assert joined[-1] == tiny_tokenizer.eos_token_id


def test_a_long_prompt_does_not_leave_its_completion_without_context(tiny_tokenizer):
    row = completion_row("question " * 40, " yes")
    (whole,) = tokenize_row(row, tiny_tokenizer, WHOLE).windows
    assert len(whole.input_ids) > 64
    (window,) = tokenize_row(row, tiny_tokenizer, 64).windows
    assert window.input_ids == whole.input_ids[-64:]


def test_conversation_scores_the_assistant_with_its_end_of_turn(tiny_tokenizer):
    row = conversation_row("Hi", "\nHello", "And?", "Bye")
    tokenized = tokenize_row(row, tiny_tokenizer, WHOLE)
    assert tiny_tokenizer.decode(scored_ids(tokenized)) == "\nHello<|im_end|>Bye<|im_end|>"
    assert tokenized.num_bytes == len("\nHelloBye")
    tokens, reference = prompt_ids(row, tiny_tokenizer)
    assert tiny_tokenizer.decode(tokens).endswith("And?<|im_end|>\n<|im_start|>assistant\n")
    assert reference == "Bye"


GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}<|im_end|>{% else %}"
    "{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
)


def test_generation_mask_is_used_and_its_end_of_turn_added(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = GENERATION  # knows no generation prompt: prefixes would not do
    tokenized = tokenize_row(conversation_row("Hi", "Hello", "And?", "Bye"), tokenizer, WHOLE)
    assert tokenizer.decode(scored_ids(tokenized)) == "Hello<|im_end|>Bye<|im_end|>"


def test_template_of_plain_words_gets_an_end_of_text(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenized = tokenize_row(conversation_row("Hi", "Hello"), tokenizer, WHOLE)
    assert tokenizer.decode(scored_ids(tokenized)).endswith("Hello\n<|endoftext|>")


def test_fast_and_slow_ways_agree(tiny_tokenizer):
    class Slow(type(tiny_tokenizer)):
        is_fast = False

    row = conversation_row("Hi", "Hello", "And?", "Bye")
    slow = copy.deepcopy(tiny_tokenizer)
    slow.__class__ = Slow
    assert tokenize_row(row, slow, WHOLE) == tokenize_row(row, tiny_tokenizer, WHOLE)


def test_conversation_without_answer_has_nothing_to_score(tiny_tokenizer):
    tokenized = tokenize_row(conversation_row("Hi"), tiny_tokenizer, WHOLE)
    assert (tokenized.windows, tokenized.num_tokens) == ([], 0)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('Conversation roles must alternate') }}", "Row 7.*must alternate"),
        ("{{ messages[-1]['content'] }}", "Row 7.*not render the content of message 1 .user."),
        (
            "{{ 'ask' if add_generation_prompt else 'say' }}"
            "{% for m in messages %}<{{ m['content'] }}>{% endfor %}",
            "Row 7.*otherwise when it asks",
        ),
    ],
)
def test_template_that_cannot_serve_is_told(tiny_tokenizer, template, words):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=words):
        tokenize_row(conversation_row("Hi", "Hello"), tokenizer, WHOLE)


def test_text_is_prompted_with_its_first_third(tiny_tokenizer, english_text):
    tokens, rest = prompt_ids(text_row(english_text[:2000]), tiny_tokenizer)
    assert len(tokens) == 32
    assert tiny_tokenizer.decode(tokens) + rest == english_text[:2000]
    short = "one two three four five six"
    num_tokens = len(tiny_tokenizer(short)["input_ids"])
    assert len(prompt_ids(text_row(short), tiny_tokenizer)[0]) == num_tokens // 3


def test_collate_pads_right_and_masks():
    batch = collate([Window([5, 6, 7], [IGNORED, 6, 7]), Window([8, 9], [IGNORED, 9])], pad_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
