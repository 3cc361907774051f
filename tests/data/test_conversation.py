"""Every way of writing a conversation ends in the messages that transformers expects."""

import json

import pytest

from heldout.core.errors import UserError
from heldout.data.columns import read_rows
from heldout.data.stream import RowStream

USER = {"role": "user", "content": "How tall is the tower?"}
ANSWER = {"role": "assistant", "content": "It has 41 steps."}
CALL = {"type": "function", "function": {"name": "measure", "arguments": {"what": "tower"}}}
TOOL = {"type": "function", "function": {"name": "measure", "parameters": {"type": "object"}}}


def read(tmp_path, *rows, columns=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_rows(path, columns).rows
    assert [row.messages for row in RowStream(path, columns).rows()] == [
        row.messages for row in found
    ]
    return found


def messages_of(tmp_path, row, columns=None):
    return list(read(tmp_path, row, columns=columns)[0].messages)


def refusal(tmp_path, row):
    with pytest.raises(UserError) as caught:
        read(tmp_path, {"messages": [USER, ANSWER]}, row)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_parts_of_text_are_joined(tmp_path):
    parts = [{"type": "text", "text": "How tall "}, {"type": "input_text", "text": "is it?"}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Tall.", "image": None}]}
    found = messages_of(tmp_path, {"messages": [{"role": "user", "content": parts}, answer]})
    assert [message["content"] for message in found] == ["How tall is it?", "Tall."]


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio"])
def test_other_parts_are_refused_by_line_and_name(tmp_path, kind):
    turn = {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": kind}]}
    assert refusal(tmp_path, {"messages": [turn, ANSWER]}) == (
        f"rows.jsonl line 2: \"messages\" 1 content holds a part of type '{kind}', and only text "
        "is trained on: leave such rows out. Nothing was written."
    )


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_one_key(tmp_path, key):
    found = messages_of(tmp_path, {"messages": [USER, {**ANSWER, key: "I count."}]})
    assert found == [USER, {**ANSWER, "reasoning_content": "I count."}]


def test_reasoning_as_a_part(tmp_path):
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "I count."}]},
        {"type": "text", "text": ANSWER["content"]},
    ]
    found = messages_of(tmp_path, {"messages": [USER, {"role": "assistant", "content": parts}]})
    assert found[1] == {**ANSWER, "reasoning_content": "I count."}


ARGUMENTS = '{"what": "tower"}'
WRITTEN_CALL = {"name": "measure", "arguments": ARGUMENTS}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "tool_calls": [{"function": WRITTEN_CALL}]},
        {"role": "assistant", "tool_calls": [{"name": "measure", "parameters": {"what": "tower"}}]},
        {"role": "assistant", "function_call": WRITTEN_CALL},
        {"from": "function_call", "value": f'{{"name": "measure", "arguments": {ARGUMENTS}}}'},
        {"role": "function_call", "content": f'[{{"name": "measure", "arguments": {ARGUMENTS}}}]'},
    ],
)
@pytest.mark.parametrize(
    "result",
    [
        {"role": "tool", "content": '{"m": 9}'},
        {"role": "tool", "content": {"m": 9}},
        {"role": "ipython", "content": '{"m": 9}'},
        {"role": "function", "content": '{"m": 9}'},
        {"from": "observation", "value": '{"m": 9}'},
    ],
)
def test_calls_and_results_reach_transformers_form(tmp_path, turn, result):
    found = messages_of(tmp_path, {"messages": [USER, turn, result, ANSWER]})
    assert found == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"m": 9}'},
        ANSWER,
    ]


def test_names_and_ids_are_kept(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c1"}]}
    result = {"role": "tool", "tool_call_id": "c1", "name": "measure", "content": "9"}
    found = messages_of(tmp_path, {"messages": [USER, call, result, ANSWER]})
    assert found[1]["tool_calls"][0]["id"] == "c1"
    assert found[2] == result


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": {}}}]},
            '"messages" 2 tool_calls must be calls {name, arguments} or their JSON text, got no '
            "name.",
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "half {"}]},
            '"messages" 2 tool_calls: the arguments of "f" must be an object or its JSON text, got '
            "a string.",
        ),
        (
            {"from": "function_call", "value": "measure(tower)"},
            '"messages" 2 value must be calls {name, arguments} or their JSON text, got a string.',
        ),
        (
            {"role": "user", "content": "", "tool_calls": [CALL]},
            '"messages" 2 has calls of a function, which only an assistant makes, and is of '
            "'user'.",
        ),
    ],
)
def test_broken_calls_are_refused_by_line(tmp_path, turn, message):
    found = refusal(tmp_path, {"messages": [USER, turn, ANSWER]})
    assert found == f"rows.jsonl line 2: {message} Nothing was written."


def test_nothing_said_and_nothing_called_is_refused(tmp_path):
    found = refusal(tmp_path, {"messages": [USER, {"role": "assistant", "content": None}]})
    assert "1 row has an empty assistant message, at line 2" in found


@pytest.mark.parametrize("tools", [[TOOL], [TOOL["function"]], json.dumps([TOOL]), TOOL])
def test_tools_reach_the_row(tmp_path, tools):
    row = read(tmp_path, {"messages": [USER, ANSWER], "tools": tools})[0]
    assert row.tools == (TOOL,)


@pytest.mark.parametrize("nothing", [None, [], "[]", ""])
def test_no_tools(tmp_path, nothing):
    assert read(tmp_path, {"messages": [USER, ANSWER], "tools": nothing})[0].tools == ()


ARGUMENTS_OF_TEMPLATE = {"enable_thinking": False, "style": {"tone": "dry"}}


@pytest.mark.parametrize(
    "columns",
    [
        {"messages": [USER, ANSWER]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": "a", "completion": "b"},
        {"instruction": "a", "output": "b"},
    ],
)
@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (ARGUMENTS_OF_TEMPLATE, ARGUMENTS_OF_TEMPLATE),
        (json.dumps(ARGUMENTS_OF_TEMPLATE), ARGUMENTS_OF_TEMPLATE),
        ({"enable_thinking": True, "style": None}, {"enable_thinking": True}),
        (None, {}),
        ({}, {}),
        ("", {}),
    ],
)
def test_arguments_of_the_template_reach_the_row(tmp_path, columns, value, read_as):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**columns, "chat_template_kwargs": value}), encoding="utf-8")
    found = read_rows(path)
    assert found.rows == list(RowStream(path).rows())
    assert found.rows[0].template_arguments == read_as
    assert found.kind == "conversation"
    assert found.columns["chat_template_kwargs"] == "chat_template_kwargs"
    assert found.notes == ()
    (row,) = found.rows
    assert type(row).from_json(json.loads(json.dumps(row.to_json()))) == row
    path.write_text(json.dumps(row.to_json()), encoding="utf-8")
    assert read_rows(path).rows == [row]


def test_arguments_under_another_name(tmp_path):
    row = {"messages": [USER, ANSWER], "template": {"tone": "dry"}}
    (found,) = read(tmp_path, row, columns={"chat_template_kwargs": "template"})
    assert found.template_arguments == {"tone": "dry"}


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ([1], "a list"),
        (True, "true or false"),
        ("dry", "a string"),
        ('{"tone": ', "broken JSON text"),
        ({"tools": []}, "tools"),
        ({"chat_template": "x"}, "chat_template"),
        ({"no name": 1}, "no name"),
    ],
)
def test_arguments_that_are_none_are_refused_by_line(tmp_path, value, got):
    row = {"messages": [USER, ANSWER], "chat_template_kwargs": value}
    assert refusal(tmp_path, row) == (
        'rows.jsonl line 2: "chat_template_kwargs" must be an object of names of variables of the '
        f"chat template, such as enable_thinking, with their values, got {got}. Nothing was "
        "written."
    )


def test_system_column_stands_first(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    plain = {"from": "human", "value": USER["content"]}, {"from": "gpt", "value": ANSWER["content"]}
    wanted = [system, USER, ANSWER]
    for row in (
        {"messages": [USER, ANSWER], "system": "Be brief."},
        {"messages": wanted, "system": "Be brief."},
        {"conversations": plain, "system": "Be brief."},
        {"instruction": USER["content"], "output": ANSWER["content"], "system": "Be brief."},
        {"prompt": USER["content"], "completion": ANSWER["content"], "system": "Be brief."},
        {"prompt": [system, USER], "completion": [ANSWER]},
    ):
        assert messages_of(tmp_path, row) == wanted
    other = {"messages": wanted, "system": "Be long."}
    assert 'line 2: "system" and the system message of the conversation differ' in refusal(
        tmp_path, other
    )


def test_alpaca_history_is_earlier_turns_that_are_learned(tmp_path):
    row = {
        "instruction": "And how old?",
        "input": "The tower.",
        "output": "70 years.",
        "history": [["How tall is the tower?", "It has 41 steps."]],
    }
    assert messages_of(tmp_path, row) == [
        USER,
        ANSWER,
        {"role": "user", "content": "And how old?\nThe tower."},
        {"role": "assistant", "content": "70 years."},
    ]


def test_a_prompt_of_messages_is_context_whoever_speaks(tmp_path):
    again = [{"role": "user", "content": "Sure?"}]
    row = {
        "prompt": [USER, ANSWER, *again],
        "completion": [{"role": "assistant", "content": "Yes."}],
    }
    found = messages_of(tmp_path, row)
    assert [message.get("train", True) for message in found] == [True, False, True, True]
    assert found[-1] == {"role": "assistant", "content": "Yes."}


def test_a_column_of_reasoning_is_mapped_and_suggested(tmp_path):
    row = {"Question": "How tall?", "Complex_CoT": "I count.", "Response": "41."}
    options = {"prompt": "Question", "completion": "Response", "reasoning": "Complex_CoT"}
    assert messages_of(tmp_path, row, options) == [
        {"role": "user", "content": "How tall?"},
        {"role": "assistant", "content": "41.", "reasoning_content": "I count."},
    ]
    with pytest.raises(UserError) as caught:
        read(tmp_path, row)
    hint = " ".join(f"--set data.columns.{role}={column}" for role, column in options.items())
    assert str(caught.value).endswith(f"Map them: {hint}.")


def test_messages_as_json_text_in_a_cell(tmp_path):
    path = tmp_path / "rows.csv"
    cell = json.dumps([USER, ANSWER]).replace('"', '""')
    path.write_text(f'messages\n"{cell}"\n', encoding="utf-8")
    assert list(read_rows(path).rows[0].messages) == [USER, ANSWER]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train", False),
        ("loss", False),
        ("weight", 0),
        ("weight", 0.0),
        ("training", False),
        ("masked", True),
    ],
)
def test_masked_turns_are_context(tmp_path, key, value):
    wrong = {"role": "assistant", "content": "It has 2 steps.", key: value}
    right = {**ANSWER, key: not value}
    found = messages_of(tmp_path, {"messages": [USER, wrong, USER, right]})
    assert [message.get("train", True) for message in found] == [True, False, True, True]


@pytest.mark.parametrize(
    ("of_user", "of_answers", "learned"), [(0, (1, 0), 0), (True, (True, False), 1)]
)
def test_mask_means_what_the_turns_of_the_user_say(tmp_path, of_user, of_answers, learned):
    user = {**USER, "mask": of_user}
    answers = [{**ANSWER, "mask": mask} for mask in of_answers]
    found = messages_of(tmp_path, {"messages": [user, answers[0], user, answers[1]]})
    assert [message.get("train", True) for message in (found[1], found[3])].index(True) == learned


TOO_LONG = {"begin_offset": 0, "end_offset": 99, "train": True}


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (
            [USER, {**ANSWER, "mask": 1}],
            '"mask" means hidden in some data and learned in others, and here no turn of the user '
            'tells which: rename the key to "train" (true: learned).',
        ),
        (
            [USER, {**ANSWER, "weight": 0.5}],
            '"messages" 2 weight must be true or false (or 1 or 0), got 0.5.',
        ),
        (
            [USER, {**ANSWER, "weight": 0, "train": True}],
            '"messages" 2 has train and weight, which contradict each other.',
        ),
        (
            [USER, {**ANSWER, "train_detail": [TOO_LONG]}],
            '"messages" 2 train_detail must lie within the 16 characters of the content, counted '
            "from 0, got 0 to 99.",
        ),
    ],
)
def test_unclear_masks_are_refused_by_line(tmp_path, turns, message):
    assert refusal(tmp_path, {"messages": turns}) == (
        f"rows.jsonl line 2: {message} Nothing was written."
    )


def test_a_row_that_is_masked_all_over_is_refused(tmp_path):
    found = refusal(tmp_path, {"messages": [USER, {**ANSWER, "train": False}]})
    assert "1 row has no assistant message that is not masked, at line 2" in found


def test_details_are_kept(tmp_path):
    spans = [
        {"begin_offset": 0, "end_offset": 5, "train": False},
        {"begin_offset": 6, "end_offset": 15, "train": True},
    ]
    found = messages_of(tmp_path, {"messages": [USER, {**ANSWER, "train_detail": spans}]})
    assert found[1]["train_detail"] == spans


def test_rows_come_back_from_json_as_they_were(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    row = read(tmp_path, {"messages": [USER, call, ANSWER], "tools": [TOOL]})[0]
    assert type(row).from_json(json.loads(json.dumps(row.to_json()))) == row
    assert row.where.endswith("rows.jsonl line 1")


def test_keys_of_turns_that_are_not_read_are_told(tmp_path):
    turns = [{**USER, "emotion": "calm", "annotations": []}, {**ANSWER, "id": 4, "weight": 1}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    note = f"{path}: not used: keys 'emotion', 'id' of the turns in 'messages'."
    assert read_rows(path).notes == (note,)
    assert RowStream(path).notes() == [note]


def asked_with(**turn):
    return {"messages": [USER, {"role": "assistant", "content": None, **turn}]}


def called_with(arguments):
    return asked_with(function_call={"name": "measure", "arguments": arguments})


MUST_BE = {
    "arguments": '"measure" must be an object or its JSON text, got ',
    "tool_calls": "must be calls {name, arguments} or their JSON text, got ",
    "messages": '"messages" must be a list of {role, content}, got ',
}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (called_with('{"what": '), MUST_BE["arguments"] + "broken JSON text."),
        (called_with("tower"), MUST_BE["arguments"] + "a string."),
        (asked_with(tool_calls='[{"name"'), MUST_BE["tool_calls"] + "broken JSON text."),
        ({"messages": [USER, ANSWER], "tools": "[{"}, "got broken JSON text in it."),
        ({"messages": '[{"role": "user"'}, MUST_BE["messages"] + "broken JSON text."),
        ({"messages": [{**USER, "content": 5}, ANSWER]}, ': "messages" 1 content must be text,'),
    ],
)
def test_a_fault_says_what_was_found(tmp_path, row, words):
    assert words in refusal(tmp_path, row)
