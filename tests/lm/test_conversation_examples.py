"""Conversations under templates that change, open, drop or want something of their own."""

import copy
import dataclasses
import math

import pytest

from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.chat_template import with_template_arguments
from heldout.lm.conversation import prompt_and_answer, rendered_examples
from heldout.lm.nll import document_losses
from heldout.lm.tokenize import IGNORED, prompt_ids, tokenize_row

# Reasoning is kept behind the last question only, where a block of it stands even if empty.
THINKS = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% if loop.index0 > ns.last and loop.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>"
    "\n\n{% endif %}{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} "
    "{{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
PARTS_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WRITTEN_ARGUMENTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is none %}"
    "{% for c in m.tool_calls %}{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DRY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and tone is defined %}{{ tone }} {% endif %}"
    "{% if not hides %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_SYSTEM = (
    "{% for m in messages if m.role in ('user', 'assistant') %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def user(text):
    return {"role": "user", "content": text}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


CALL = {"type": "function", "function": {"name": "weigh", "arguments": {"what": "lead"}}}
TWO = (user("Gray?"), answer("Slate."), user("White?"), answer("Chalk."))


def with_template(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def learned(row, tokenizer):
    """The texts that are scored, and the number of examples."""
    examples = rendered_examples(row, tokenizer)
    return [e.text[start:end] for e in examples for start, end in e.spans], len(examples)


def row_of(*messages, **more):
    return Row(3, messages, "a", **more)


def test_each_answer_is_scored_once_where_later_messages_change_it(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    texts, num_examples = learned(row_of(*TWO), tokenizer)
    assert texts == ["Slate.<|im_end|>\n", "Chalk.<|im_end|>\n"]
    assert num_examples == 2
    first, second = rendered_examples(row_of(*TWO), tokenizer)
    assert first.text.endswith("<think>\n\n</think>\n\nSlate.<|im_end|>\n")
    assert "assistant\nSlate." in second.text


def test_its_windows_count_examples_and_repeated_tokens(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    found = tokenize_row(row_of(*TWO), tokenizer, 1000)
    assert (found.num_examples, len(found.windows)) == (2, 2)
    first, second = (window.input_ids for window in found.windows)
    shared = next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert found.num_repeated == shared > 0
    assert found.num_tokens == sum(window.num_scored for window in found.windows)
    assert found.num_bytes == len("Slate.Chalk.")
    plain = tokenize_row(row_of(*TWO), tiny_tokenizer, 1000)
    assert (plain.num_examples, plain.num_repeated, plain.num_tokens) == (1, 0, found.num_tokens)


def test_long_examples_become_windows_that_score_each_token_once(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    row = row_of(user("Gray?"), answer("Slate is. " * 20), user("White?"), answer("Chalk. " * 20))
    whole, cut = tokenize_row(row, tokenizer, 10_000), tokenize_row(row, tokenizer, 32)
    assert max(len(window.input_ids) for window in cut.windows) == 32
    labels = [
        [label for window in found.windows for label in window.labels if label != IGNORED]
        for found in (whole, cut)
    ]
    assert labels[0] == labels[1]


def test_reasoning_is_learned_with_its_own_answer(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    messages = [
        {**message, "reasoning_content": "I look."} if message["role"] == "assistant" else message
        for message in TWO
    ]
    texts, _ = learned(row_of(*messages), tokenizer)
    assert texts == [
        "<think>\nI look.\n</think>\n\nSlate.<|im_end|>\n",
        "<think>\nI look.\n</think>\n\nChalk.<|im_end|>\n",
    ]
    with pytest.raises(UserError, match=r"^Row 3: .*not render the reasoning of message 2"):
        learned(row_of(*messages), tiny_tokenizer)


def test_two_answers_in_a_row_stand_behind_what_the_model_is_asked_with(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    row = row_of(user("How heavy?"), answer("", tool_calls=[CALL]), answer("Twelve."))
    texts, num_examples = learned(row, tokenizer)
    assert texts == ['<call>weigh {"what": "lead"}</call><|im_end|>\n', "Twelve.<|im_end|>\n"]
    assert num_examples == 1
    assert "assistant\n<think>\n\n</think>\n\n<call>" in rendered_examples(row, tokenizer)[0].text


def test_what_generation_begins_with_is_what_training_had(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    for row in (row_of(*TWO), row_of(user("Gray?"), answer("Slate.", reasoning_content="I look."))):
        prompt, _ = prompt_ids(row, tokenizer)
        window = tokenize_row(row, tokenizer, 1000).windows[-1]
        assert window.input_ids[: len(prompt)] == prompt
        assert window.labels[len(prompt)] != IGNORED
    assert prompt_and_answer(row_of(*TWO), tokenizer)[1] == "Chalk."
    assert prompt_and_answer(row, tokenizer)[1] == "<think>\nI look.\n</think>\n\nSlate."


def test_arguments_of_a_row_go_before_those_of_the_template(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    thinks, quick = (
        row_of(user("Gray?"), answer("Slate."), template_arguments={"enable_thinking": thinks})
        for thinks in (True, False)
    )
    plain = row_of(user("Gray?"), answer("Slate."))
    block = "<think>\n\n</think>\n\n"

    def opens_block(row):
        unanswered = dataclasses.replace(row, messages=row.messages[:1])
        return prompt_and_answer(unanswered, tokenizer)[0].endswith(block)

    assert [opens_block(row) for row in (plain, thinks, quick)] == [False, False, True]
    with_template_arguments(tokenizer, {"enable_thinking": False})
    assert [opens_block(row) for row in (plain, thinks, quick)] == [True, False, True]


def test_arguments_of_a_row_reach_what_is_scored(tiny_tokenizer):
    """The form that a template takes may hang on them, so it is found for each of their values."""
    tokenizer = with_template(tiny_tokenizer, DRY)
    dry, plain = row_of(*TWO, template_arguments={"tone": "dry"}), row_of(*TWO)
    assert learned(plain, tokenizer) == (["Slate.<|im_end|>\n", "Chalk.<|im_end|>\n"], 1)
    assert learned(dry, tokenizer) == (["dry Slate.<|im_end|>\n", "dry Chalk.<|im_end|>\n"], 1)
    assert learned(plain, tokenizer) == (["Slate.<|im_end|>\n", "Chalk.<|im_end|>\n"], 1)
    lost = row_of(*TWO, template_arguments={"hides": True})
    with pytest.raises(UserError, match="does not render the content"):
        rendered_examples(lost, tokenizer)


def test_arguments_of_the_template_become_part_of_it(tiny_tokenizer, tmp_path):
    tokenizer = with_template(tiny_tokenizer, THINKS)
    with_template_arguments(tokenizer, {"enable_thinking": False})
    once = tokenizer.chat_template
    assert with_template_arguments(tokenizer, {"enable_thinking": False}).chat_template == once
    tokenizer.save_pretrained(tmp_path)
    saved = type(tokenizer).from_pretrained(tmp_path)
    for each in (tokenizer, saved):
        asked = each.apply_chat_template([user("a")], tokenize=False, add_generation_prompt=True)
        assert asked.endswith("<think>\n\n</think>\n\n")
        others = {"add_generation_prompt": True, "enable_thinking": True, "tokenize": False}
        assert each.apply_chat_template([user("a")], **others).endswith("assistant\n")
    assert (
        with_template_arguments(with_template(tiny_tokenizer, THINKS), {}).chat_template == THINKS
    )


def test_content_is_tried_as_parts(tiny_tokenizer):
    texts, num_examples = learned(row_of(*TWO), with_template(tiny_tokenizer, PARTS_ONLY))
    assert texts == ["Slate.<|im_end|>\n", "Chalk.<|im_end|>\n"]
    assert num_examples == 1


def test_calls_are_tried_as_text_beside_no_content(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, WRITTEN_ARGUMENTS)
    row = row_of(user("How heavy?"), answer("", tool_calls=[CALL]), answer("Twelve."))
    assert learned(row, tokenizer)[0] == [
        'weigh {"what": "lead"}<|im_end|>\n',
        "Twelve.<|im_end|>\n",
    ]


SYSTEM = {"role": "system", "content": "user"}  # a word that stands in the template, too
RESULT = {"role": "tool", "content": "assistant"}


@pytest.mark.parametrize(
    ("messages", "more", "what"),
    [
        ((SYSTEM, *TWO), {}, "the content of message 1 (system)"),
        ((*TWO[:2], RESULT, answer("So.")), {}, "the content of message 3 (tool)"),
        ((user("a"), answer("", tool_calls=[CALL])), {}, "the tool calls of message 2 (assistant)"),
        (TWO, {"tools": (CALL,)}, "the tools"),
    ],
)
def test_what_a_template_loses_is_refused_by_line(tiny_tokenizer, messages, more, what):
    tokenizer = with_template(tiny_tokenizer, WITHOUT_SYSTEM)
    with pytest.raises(UserError) as caught:
        learned(row_of(*messages, **more, where="rows.jsonl line 8"), tokenizer)
    assert str(caught.value).startswith(
        f"rows.jsonl line 8: the chat template does not render {what}, which would be lost: "
    )


def test_masked_answers_are_context(tiny_tokenizer):
    row = row_of(user("Gray?"), answer("Lead.", train=False), user("No."), answer("Slate."))
    assert learned(row, tiny_tokenizer) == (["Slate.<|im_end|>\n"], 1)
    assert "Lead." in rendered_examples(row, tiny_tokenizer)[0].text
    assert tokenize_row(row, tiny_tokenizer, 1000).num_bytes == len("Slate.")


def test_details_are_learned_with_the_end(tiny_tokenizer):
    spans = [
        {"begin_offset": 0, "end_offset": 5, "train": False},
        {"begin_offset": 7, "end_offset": 11, "train": True},
    ]
    row = row_of(user("Gray?"), answer("Slate, chalk.", train_detail=spans))
    assert learned(row, tiny_tokenizer)[0] == ["chalk", "<|im_end|>\n"]
    assert tokenize_row(row, tiny_tokenizer, 1000).num_bytes == len("chalk")


def test_the_loss_of_a_row_is_over_all_its_examples(tiny_tokenizer, tiny_model_dir):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    tokenizer = with_template(tiny_tokenizer, THINKS)
    options = {"max_length": 1000, "batch_size": 2}
    whole = document_losses(model, [row_of(*TWO)], tokenizer, **options)
    masked = (*TWO[:3], answer("Chalk.", train=False))
    parts = [row_of(*masked), row_of(TWO[0], answer("Slate.", train=False), *TWO[2:])]
    each = document_losses(model, parts, tokenizer, **options)
    assert math.isclose(whole.nll_nats_D[0], each.nll_nats_D.sum(), rel_tol=1e-6)
    assert whole.num_tokens_D[0] == each.num_tokens_D.sum()
    assert whole.groups_D.tolist() == ["a"]
