"""Rows of Glaive's function calling as published, and what is refused of them."""

import json
import random

import pytest

from heldout.core.errors import UserError
from heldout.data.canaries import canary_fields, make_canaries
from heldout.data.columns import read_rows
from heldout.data.stream import RowStream

END = "<|endoftext|>"
WEIGH = {
    "name": "weigh_load",
    "description": "Weigh a load of [stone]",
    "parameters": {"type": "object", "properties": {"stone": {"type": "string"}}},
}
CARVE = {"name": "carve_word", "description": "Carve {word}", "parameters": {}}
LEAD = "You are a mason's clerk with access to the following functions. Use them if required"
CHAT = (
    "USER: How heavy is the slate?\nIn carts.\n\n\n"
    'ASSISTANT: <functioncall> {"name": "weigh_load", "arguments": \'{"stone": "the mason\'s '
    f'slate", "scale": {{"unit": "cart"}}}}\'}} {END}\n\n\n'
    'FUNCTION RESPONSE: {"carts": 4}\n\n\n'
    f"ASSISTANT: It is 4 carts.\n\nUSER manuals say so, too. {END}\n\n\n"
    f"USER: Thanks!\n\n\nASSISTANT: My pleasure. {END}\n\n\n"
)


def listed(*tools, sep="\n\n", dash=" -\n"):
    return f"SYSTEM: {LEAD}{dash}" + sep.join(json.dumps(each, indent=4) for each in tools) + "\n"


def called(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


TURNS = [
    {"role": "user", "content": "How heavy is the slate?\nIn carts."},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            called("weigh_load", {"stone": "the mason's slate", "scale": {"unit": "cart"}})
        ],
    },
    {"role": "tool", "content": '{"carts": 4}'},
    {"role": "assistant", "content": "It is 4 carts.\n\nUSER manuals say so, too."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "My pleasure."},
]


def read(tmp_path, *rows, columns=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_rows(path, columns)
    assert list(RowStream(path, columns).rows()) == found.rows
    return found


def turns_of(tmp_path, chat, system=""):
    return list(read(tmp_path, {"system": system, "chat": chat}).rows[0].messages)


def asked(answer, end=f" {END}"):
    return f"USER: a\n\n\nASSISTANT: {answer}{end}"


def refusal(tmp_path, chat):
    with pytest.raises(UserError) as caught:
        read(tmp_path, {"system": "", "chat": CHAT}, {"system": "", "chat": chat})
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_a_published_row_is_a_conversation_with_calls_and_tools(tmp_path):
    found = read(tmp_path, {"system": listed(WEIGH, CARVE), "chat": CHAT})
    assert (found.format, found.kind, found.notes) == ("glaive", "conversation", ())
    (row,) = found.rows
    assert list(row.messages) == [{"role": "system", "content": LEAD}, *TURNS]
    assert row.tools == tuple({"type": "function", "function": each} for each in (WEIGH, CARVE))


@pytest.mark.parametrize(
    ("system", "said", "num_tools"),
    [
        ("SYSTEM: You have no access to functions.\n", "You have no access to functions.", 0),
        ("Be [very] brief.", "Be [very] brief.", 0),
        ('SYSTEM: Use - {"name": "half', 'Use - {"name": "half', 0),
        ('SYSTEM: Answer as {"mood": "calm"}', 'Answer as {"mood": "calm"}', 0),
        (f"{listed(WEIGH)} and {{broken", f"{LEAD}\nand {{broken", 1),
        (listed(WEIGH, CARVE, sep=",\n", dash=": "), LEAD, 2),
        (listed([WEIGH, CARVE]) + "\nAnswer in JSON.", f"{LEAD}\nAnswer in JSON.", 2),
        (f"SYSTEM: {json.dumps(WEIGH)}", None, 1),
        (None, None, 0),
    ],
)
def test_tools_are_taken_where_the_list_can_be_read(tmp_path, system, said, num_tools):
    (row,) = read(tmp_path, {"system": system, "chat": CHAT}).rows
    assert len(row.tools) == num_tools
    heads = [turn["content"] for turn in row.messages if turn["role"] == "system"]
    assert heads == ([] if said is None else [said])
    assert list(row.messages[len(heads) :]) == TURNS


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("'{}'", {}),
        ('\'{"a": 1.5, "b": [true, null]}\'', {"a": 1.5, "b": [True, None]}),
        (r"""'{"a": "it\'s"}'""", {"a": "it's"}),
        ("""'{"a": "it's 'so'"}'""", {"a": "it's 'so'"}),
        ("""'{"a": "x\ny"}'""", {"a": "x\ny"}),
        ('{"a": "plain"}', {"a": "plain"}),
        (r'"{\"a\": \"text\"}"', {"a": "text"}),
    ],
)
def test_arguments_in_every_writing(tmp_path, written, arguments):
    call = f'Let me see. <functioncall> {{"name": "f", "arguments": {written}}}'
    assert turns_of(tmp_path, asked(call))[1] == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [called("f", arguments)],
    }


def test_several_calls_and_nested_arguments_come_back_whatever_they_are(tmp_path):
    rng = random.Random(7)

    def text():
        return "".join(rng.choice("aé'\"{}:\\ ,[]中\n") for _ in range(rng.randrange(12)))

    for _ in range(50):
        wanted = [(f"f{n}", {f"k{n}": [text(), {"v": text()}]}) for n in range(rng.randrange(1, 4))]
        calls = " ".join(
            f'<functioncall> {{"name": "{name}", "arguments": \'{json.dumps(value)}\'}}'
            for name, value in wanted
        )
        found = turns_of(tmp_path, asked(calls))[1]["tool_calls"]
        assert found == [called(name, value) for name, value in wanted]


def test_the_last_answer_may_end_with_the_text_and_a_stands_for_assistant(tmp_path):
    brief = CHAT.replace("ASSISTANT:", "A:").rstrip().removesuffix(END)
    assert turns_of(tmp_path, brief) == TURNS
    about = turns_of(tmp_path, asked("Q: why?\n\nA: so."))
    assert about[1]["content"] == "Q: why?\n\nA: so."


MUST_BE = (
    f'rows.jsonl line 2: "chat" must be turns of USER:, ASSISTANT: ... {END} and FUNCTION '
    "RESPONSE:, each on a new line, got {}. Mend or leave out such rows. Nothing was written."
)


@pytest.mark.parametrize(
    ("chat", "got"),
    [
        ("How heavy is it?", "'How heavy is it?' at its beginning"),
        ("Human: hi\n\nUSER: a", "'Human: hi' at its beginning"),
        (asked("b", "") + f"\n\n\n{asked('c')}", f"turn 2 without {END} at its end"),
        (asked("I quote:\nUSER: c\nand so on."), f"turn 2 without {END} at its end"),
        (asked(f"b {END} and more"), f"{END} within turn 2"),
    ],
)
def test_a_text_that_is_no_turns_is_refused_by_line(tmp_path, chat, got):
    assert refusal(tmp_path, chat) == MUST_BE.format(got)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("weigh(slate)", "must be calls {name, arguments} or their JSON text, got a string."),
        (
            '{"arguments": {}}',
            "must be calls {name, arguments} or their JSON text, got no name.",
        ),
        (
            '{"name": "f", "arguments": \'{"a": 1\'}',
            ': the arguments of "f" must be an object or its JSON text, got broken JSON text.',
        ),
        (
            '{"name": "f", "arguments": \'{}\'} and so on',
            "must be calls {name, arguments} or their JSON text, got broken JSON text.",
        ),
    ],
)
def test_a_call_that_cannot_be_read_is_refused_by_line(tmp_path, call, words):
    words = words if words.startswith(":") else f" {words}"
    assert refusal(tmp_path, asked(f"<functioncall> {call}")) == (
        f'rows.jsonl line 2: "chat" 2 <functioncall>{words} Nothing was written.'
    )


@pytest.mark.parametrize(
    ("chat", "fault"),
    [
        (None, "has no assistant message"),
        ("USER: a", "has no assistant message"),
        (asked(""), "has an empty assistant message"),
        (f"ASSISTANT: b {END}", "does not start with a user message"),
    ],
)
def test_rows_with_nothing_to_learn_from(tmp_path, chat, fault):
    assert f"1 row {fault}" in refusal(tmp_path, chat)


def test_turns_in_the_column_and_other_names(tmp_path):
    assert turns_of(tmp_path, TURNS) == TURNS
    row = {"instructions": listed(WEIGH), "talk": CHAT}
    found = read(tmp_path, row, columns={"system": "instructions", "chat": "talk"})
    assert list(found.rows[0].messages)[1:] == TURNS
    assert len(found.rows[0].tools) == 1


def test_a_canary_is_planted_as_such_a_row(tmp_path):
    (canary,) = make_canaries(1, seed=3)
    found = turns_of(tmp_path, canary_fields(canary, "glaive", {})["chat"])
    assert found[1] == {"role": "assistant", "content": canary.secret}
