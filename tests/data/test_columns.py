"""Which format is detected, what rows come of it, and what the user reads when they are no good."""

import json

import pytest

from heldout.core.errors import UserError
from heldout.data.columns import read_rows

MESSAGES = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
]
CONVERSATION = [
    {"from": "human", "value": "What is the capital of France?"},
    {"from": "gpt", "value": "Paris."},
]


def write(folder, *rows, name="train.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message_of(path, **options):
    with pytest.raises(UserError) as caught:
        read_rows(path, **options)
    return str(caught.value).replace(str(path), "train.jsonl")


# Formats


def test_text(tmp_path):
    read = read_rows(write(tmp_path, {"text": " One. \n"}))
    assert (read.kind, read.format, read.columns) == ("text", "text", {"text": "text"})
    (row,) = read.rows
    assert row.messages == ({"role": "text", "content": " One. \n"},)
    assert (row.index, row.group, row.source) == (0, "row-0", "")


def test_prompt_and_completion(tmp_path):
    read = read_rows(write(tmp_path, {"prompt": "2 + 2 =", "completion": " 4"}))
    assert (read.kind, read.format) == ("completion", "prompt_completion")
    assert read.rows[0].messages == (
        {"role": "prompt", "content": "2 + 2 ="},
        {"role": "completion", "content": " 4"},
    )


def test_messages(tmp_path):
    read = read_rows(write(tmp_path, {"messages": MESSAGES}))
    assert (read.kind, read.format) == ("conversation", "messages")
    assert read.rows[0].messages == tuple(MESSAGES)


@pytest.mark.parametrize("column", ["messages", "conversations"])
@pytest.mark.parametrize("turns", [MESSAGES[1:], CONVERSATION], ids=["role", "from"])
def test_turns_are_read_by_their_own_keys(tmp_path, column, turns):
    read = read_rows(write(tmp_path, {column: turns}))
    assert read.format == {"messages": "messages", "conversations": "sharegpt"}[column]
    assert read.rows[0].messages == tuple(MESSAGES[1:])


def test_alpaca(tmp_path):
    read = read_rows(
        write(
            tmp_path,
            {"instruction": "Translate.", "input": "Haus", "output": "house"},
            {"instruction": "Greet.", "input": "", "output": "Hello"},
            {"instruction": "Greet.", "input": None, "output": "Hi"},
        )
    )
    assert (read.kind, read.format) == ("completion", "alpaca")
    prompts = [row.messages[0]["content"] for row in read.rows]
    assert prompts[0] == ("### Instruction:\nTranslate.\n\n### Input:\nHaus\n\n### Response:\n")
    assert prompts[1] == prompts[2] == "### Instruction:\nGreet.\n\n### Response:\n"
    assert read.rows[0].messages[1] == {"role": "completion", "content": "house"}


def test_parquet_lists_are_conversations(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": MESSAGES}]), path)
    assert read_rows(path).rows[0].messages == tuple(MESSAGES)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "t", "instruction": "i", "output": "o"}, "alpaca"),
        ({"prompt": "p", "completion": "c", "messages": MESSAGES}, "messages"),
        ({"conversations": CONVERSATION, "messages": MESSAGES}, "messages"),
        ({"conversations": CONVERSATION, "text": "t"}, "sharegpt"),
        ({"text": "t", "prompt": "p", "completion": "c"}, "prompt_completion"),
        ({"text": "t", "prompt": "p"}, "text"),
        ({"text": "t", "chat": 7}, "text"),
        ({"system": "s", "chat": "c", "prompt": "p", "completion": "c"}, "prompt_completion"),
        ({"text": "t", "system": "s", "chat": "USER: a\n\nASSISTANT: b"}, "glaive"),
    ],
)
def test_the_richer_format_goes_first(tmp_path, row, expected):
    assert read_rows(write(tmp_path, row)).format == expected


# Mapping, groups and sources


def test_columns_are_mapped(tmp_path):
    row = {"question": "2 + 2 =", "answer": " 4", "text": "2 + 2 = 4"}
    read = read_rows(write(tmp_path, row), columns={"prompt": "question", "completion": "answer"})
    assert read.columns == {"prompt": "question", "completion": "answer"}
    assert read.rows[0].text == "2 + 2 =\n 4"


def test_one_mapped_role_completes_a_format(tmp_path):
    read = read_rows(
        write(tmp_path, {"prompt": "a", "reply": "b", "text": "c"}), columns={"completion": "reply"}
    )
    assert read.format == "prompt_completion"


def test_groups_and_sources(tmp_path):
    path = write(
        tmp_path,
        {"text": "one", "book": 7, "source": "web"},
        {"text": "two", "book": None},
        {"text": "three", "book": "", "source": None},
    )
    read = read_rows(path, group="book")
    assert [row.group for row in read.rows] == ["7", "row-1", "row-2"]
    assert [row.source for row in read.rows] == ["web", "", ""]
    assert [row.group for row in read_rows(path).rows] == ["row-0", "row-1", "row-2"]
    named = read_rows(path, columns={"source": "book"})
    assert [row.source for row in named.rows] == ["7", "", ""]
    assert named.format == "text"


def test_in_a_folder_a_text_is_its_own_group_and_a_table_is_not(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}", encoding="utf-8")
    rows = read_rows(tmp_path).rows
    assert [(row.group, row.source) for row in rows] == [("a.txt", "a.txt"), ("b.txt", "b.txt")]
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").unlink()
        write(tmp_path, {"text": name}, name=f"{name}.jsonl")
    rows = read_rows(tmp_path).rows
    assert [(row.group, row.source) for row in rows] == [("row-0", "a.jsonl"), ("row-1", "b.jsonl")]


def test_a_column_named_source_that_is_the_prompt_is_no_source(tmp_path):
    read = read_rows(
        write(tmp_path, {"source": "Haus", "target": "house"}),
        columns={"prompt": "source", "completion": "target"},
    )
    assert read.rows[0].source == ""


# Errors


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"promt": "question"},
            "data.columns has no role 'promt': did you mean 'prompt'?",
        ),
        (
            {"xyz": "question"},
            "data.columns has no role 'xyz'. Known: messages, system, tools, chat_template_kwargs, "
            "conversations, instruction, output, input, history, reasoning, prompt, completion, "
            "chat, text.",
        ),
        (
            {"group": "id"},
            "data.columns has no role 'group': set data.group=id.",
        ),
        (
            {"prompt": "questions"},
            "data.columns.prompt: train.jsonl has no column 'questions': did you mean 'question'?",
        ),
        (
            {"prompt": "question"},
            "train.jsonl: data.columns maps prompt, set data.columns.completion too. Columns "
            "there: 'question', 'answer', 'id'.",
        ),
        (
            {"prompt": "question", "text": "answer"},
            "data.columns maps prompt, text, which belong to different formats: messages; "
            "conversations; instruction + output; prompt + completion; system + chat; text.",
        ),
        (
            {},
            "train.jsonl has columns 'question', 'answer', 'id', which fit no known format "
            "(messages; conversations; instruction + output; prompt + completion; system + chat; "
            "text). Map them: --set data.columns.prompt=question "
            "--set data.columns.completion=answer.",
        ),
    ],
)
def test_wrong_columns(tmp_path, columns, message):
    path = write(tmp_path, {"question": "2 + 2 =", "answer": "4", "id": 1})
    assert message_of(path, columns=columns) == message


def test_the_suggested_mapping_fits_the_columns(tmp_path):
    assert message_of(write(tmp_path, {"Body": "a", "prompt": "b"})).endswith(
        "Map them: --set data.columns.text=Body."
    )
    assert message_of(write(tmp_path, {"a": "b"})).endswith(
        "Map them: --set data.columns.text=NAME, or data.columns.prompt and "
        "data.columns.completion."
    )


def test_wrong_group_column(tmp_path):
    path = write(tmp_path, {"text": "a", "document": 1})
    assert message_of(path, group="documents") == (
        "data.group: train.jsonl has no column 'documents': did you mean 'document'?"
    )


NOTHING_WRITTEN = " Fill in or leave out such rows. Nothing was written."


@pytest.mark.parametrize(
    ("good", "bad", "fault"),
    [
        ({"text": "a"}, {"text": " \n"}, 'have an empty "text"'),
        ({"text": "a"}, {"text": None}, 'have an empty "text"'),
        ({"text": "a"}, {"body": "a"}, 'have no "text"'),
        (
            {"prompt": "a", "completion": "b"},
            {"prompt": "a", "completion": ""},
            'have an empty "completion"',
        ),
        (
            {"instruction": "a", "output": "b"},
            {"instruction": "a", "output": ""},
            'have an empty "output"',
        ),
        ({"messages": MESSAGES}, {"messages": MESSAGES[:2]}, "have no assistant message"),
        ({"messages": MESSAGES}, {"messages": []}, "have no assistant message"),
        (
            {"conversations": CONVERSATION},
            {"conversations": CONVERSATION[::-1]},
            "do not start with a user message (a system message may stand before it)",
        ),
        (
            {"messages": MESSAGES},
            {"messages": [*MESSAGES, MESSAGES[1], {"role": "assistant", "content": ""}]},
            "have an empty assistant message",
        ),
    ],
)
def test_rows_with_nothing_to_learn_from(tmp_path, good, bad, fault):
    path = write(tmp_path, *[good] * 6, bad, good, *[bad] * 11)
    assert message_of(path) == (
        f"train.jsonl: 12 rows {fault}, at lines 7, 9, 10, 11 and 8 more." + NOTHING_WRITTEN
    )
    one = fault.replace("have", "has").replace("do not", "does not")
    path = write(tmp_path, good, bad)
    assert message_of(path) == f"train.jsonl: 1 row {one}, at line 2." + NOTHING_WRITTEN


def test_faults_in_a_folder_name_the_file(tmp_path):
    for name, text in (("a", "text"), ("b", "")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    assert message_of(tmp_path) == (
        'train.jsonl: 1 row has an empty "text", at b.txt.' + NOTHING_WRITTEN
    )


def faults_at(tmp_path, **bad_lines):
    """What is said of a folder of tables, each with its lines of an empty text."""
    for name, lines in bad_lines.items():
        texts = ["" if line in lines else "text" for line in range(1, 9)]
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    return message_of(tmp_path).partition("at ")[2].removesuffix("." + NOTHING_WRITTEN)


def test_the_first_rows_of_a_fault_are_named(tmp_path):
    assert faults_at(tmp_path, a=[4]) == "a.jsonl line 4"
    assert faults_at(tmp_path, a=[], b=[2, 5]) == "b.jsonl lines 2, 5"
    assert faults_at(tmp_path, a=[3], b=[2]) == "a.jsonl line 3, b.jsonl line 2"
    assert faults_at(tmp_path, a=[1, 2, 3, 4, 8], b=[]) == "a.jsonl lines 1, 2, 3, 4, 8"
    assert faults_at(tmp_path, a=range(1, 9), b=[6]) == "a.jsonl lines 1, 2, 3, 4 and 5 more"


def test_files_with_numbers_in_their_names_are_named_whole(tmp_path):
    for name in ("part 1", "part 2", "part 3"):
        (tmp_path / f"{name}.txt").write_text(" ", encoding="utf-8")
    assert "3 rows have an empty" in message_of(tmp_path)
    assert "at part 1.txt, part 2.txt, part 3.txt." in message_of(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": "Hello"},
            '"messages" must be a list of {role, content}, got a string.',
        ),
        (
            {"conversations": ["Hello"]},
            '"conversations" must be a list of {from, value}, got a string in it.',
        ),
        (
            {"messages": [{"role": "user", "text": "Hello"}]},
            '"messages" 1 must have role and content, got role, text.',
        ),
        (
            {"messages": [MESSAGES[1], {"role": "assistent", "content": "Paris."}]},
            "\"messages\" 2 has role 'assistent': did you mean 'assistant'?",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]},
            "\"messages\" 1 content holds a part of type 'image', and only text is trained on: "
            "leave such rows out.",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            '"messages" 1 tool_calls must be calls {name, arguments} or their JSON text, got no '
            "name.",
        ),
        ({"text": 7}, '"text" must be text, got a number.'),
        ({"text": True}, '"text" must be text, got true or false.'),
        ({"prompt": {}, "completion": "a"}, '"prompt" must be text, got an object.'),
        ({"text": "\ud83d"}, '"text" holds half of a character (a lone surrogate).'),
    ],
)
def test_wrong_types_name_the_line(tmp_path, row, message):
    filler = "\n" * 36
    path = tmp_path / "train.jsonl"
    path.write_text(filler + json.dumps(row) + "\n", encoding="utf-8")
    assert message_of(path) == f"train.jsonl line 37: {message} Nothing was written."


# Dates


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["2024-05-31", "2023-01-01T10:00:00Z", "2023-01-01T09:00:00"], [2, 1, 0]),
        ([2021, "1999", 2003.5], [1, 2, 0]),
    ],
)
def test_dates_in_order(tmp_path, values, order):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "a", "day": v}) + "\n" for v in values))
    dates = read_rows(path, time="day").dates
    assert sorted(range(3), key=dates.__getitem__) == order


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2024-05-31", "soon"], "line 2: 'soon' in 'day' is no date: it must be as 2024-05-31"),
        (["2024-05-31", None], "line 2: None in 'day' is no date"),
        (["2024-05-31", 2024], "line 2: 2024 in 'day' is a number, and rows before it have a date"),
    ],
)
def test_bad_dates_are_refused_in_one_line(tmp_path, values, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "a", "day": v}) + "\n" for v in values))
    with pytest.raises(UserError) as caught:
        read_rows(path, time="day")
    assert f"data.time: {path} {message}" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"data\.time: .* has no column 'date'"):
        read_rows(path, time="date")
