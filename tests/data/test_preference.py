"""Chosen and rejected answers, labels, images: none is learned unasked, and no prompt alone."""

import json

import pytest

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection
from heldout.data.columns import read_rows
from heldout.data.stream import RowStream

GOOD, BAD = "It sank off Hull in 1881.", "Ships float."
ASKED = {"role": "user", "content": "What became of the Alba?"}
SAID = {"role": "assistant", "content": GOOD}
NOT_SO = {"role": "assistant", "content": BAD}
LEARN = DataSection(learn_chosen=True)


def write(folder, *rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def turn(who, what):
    return {"from": who, "value": what}


PAIRS = {
    "texts": {"prompt": ASKED["content"], "chosen": GOOD, "rejected": BAD},
    "turns after a prompt": {"prompt": [ASKED], "chosen": [SAID], "rejected": [NOT_SO]},
    "text after turns": {"prompt": [ASKED], "chosen": GOOD, "rejected": BAD},
    "turn after a text": {"prompt": ASKED["content"], "chosen": [SAID], "rejected": []},
    "whole talks": {"chosen": [ASKED, SAID], "rejected": [ASKED, NOT_SO]},
    "whole talks, their prompt again": {
        "prompt": "What?", "chosen": [ASKED, SAID], "rejected": [ASKED], "messages": [ASKED]
    },
    "beside a talk": {
        "conversations": [turn("human", ASKED["content"])],
        "chosen": turn("gpt", GOOD),
        "rejected": turn("gpt", BAD),
    },
    "text beside a talk": {"messages": [ASKED], "chosen": GOOD, "rejected": BAD},
    "alpaca": {"instruction": ASKED["content"], "input": "", "chosen": GOOD, "rejected": BAD},
    "question": {"question": ASKED["content"], "chosen": GOOD, "rejected": BAD},
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_refused_or_their_chosen_answer_is_learned(tmp_path, name):
    path = write(tmp_path, PAIRS[name])
    for read in (read_rows, RowStream):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} holds pairs of a chosen and a rejected answer, which are for preference "
            "training (DPO, ORPO). To learn the chosen answers alone: --learn-chosen or --set "
            "data.learn_chosen=true. Nothing was written."
        )
    (row,) = read_rows(path, data=LEARN).rows
    assert [item.row for item in RowStream(path, data=LEARN)] == [row]
    assert row.messages[-1]["role"] in ("completion", "assistant")
    assert row.messages[-1]["content"] == GOOD
    assert len(row.messages) == 2
    assert ASKED["content"] in row.messages[0]["content"]
    assert BAD not in row.text
    (note,) = read_rows(path, data=LEARN).notes
    assert note == f"{path}: the chosen answers are learned, the rejected ones left out."


def test_earlier_turns_stay_before_the_chosen_answer(tmp_path):
    talk = [turn("human", "Hi"), turn("gpt", "Ho"), turn("human", ASKED["content"])]
    row = {"conversations": talk, "chosen": turn("gpt", GOOD), "rejected": turn("gpt", BAD)}
    (read,) = read_rows(write(tmp_path, row), data=LEARN).rows
    assert [m["content"] for m in read.messages] == ["Hi", "Ho", ASKED["content"], GOOD]


def test_a_prompt_under_another_name(tmp_path):
    path = write(tmp_path, {"scene": ASKED["content"], "chosen": GOOD, "rejected": BAD})
    (row,) = read_rows(path, columns={"prompt": "scene"}, data=LEARN).rows
    assert [m["content"] for m in row.messages] == [ASKED["content"], GOOD]


def test_a_user_may_map_the_chosen_column(tmp_path):
    path = write(tmp_path, PAIRS["texts"])
    (row,) = read_rows(path, columns={"completion": "chosen"}).rows
    assert row.messages[1]["content"] == GOOD
    assert (
        "not used: column 'rejected'" in read_rows(path, columns={"completion": "chosen"}).notes[0]
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": GOOD, "rejected": BAD}, 'no prompt stands beside "chosen"'),
        ({"chosen": [SAID], "rejected": [SAID]}, 'no prompt stands before "chosen"'),
        ({"prompt": "a", "chosen": 3, "rejected": BAD}, '"chosen" must be text or messages, got'),
        ({"prompt": "a", "chosen": None, "rejected": BAD}, '"chosen" must be text or messages'),
    ],
)
def test_pairs_without_a_prompt_or_an_answer(tmp_path, row, message):
    path = write(tmp_path, PAIRS["texts"], row)
    with pytest.raises(UserError, match=f"line 2: {message}"):
        read_rows(path, data=LEARN)
    good, bad = RowStream(path, data=LEARN)
    assert good.fault is None
    assert message in bad.fault.message


def labelled(label, column="label", **fields):
    return {**(fields or {"prompt": "What?", "completion": GOOD if label else BAD}), column: label}


def test_answers_with_a_bad_label_are_refused_or_left_out(tmp_path):
    path = write(tmp_path, labelled(True), labelled(False), labelled(True), labelled(False))
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert str(caught.value) == (
        f'{path} line 2: "label" is false: a bad answer would be learned as a good one. To learn '
        "the good answers alone: --learn-chosen or --set data.learn_chosen=true."
    )
    assert [item.fault is None for item in RowStream(path)] == [True, False, True, False]
    read = read_rows(path, data=LEARN)
    assert [row.messages[1]["content"] for row in read.rows] == [GOOD, GOOD]
    assert read.notes == (f"{path}: 2 answers are bad by their label: left out.",)
    stream = RowStream(path, data=LEARN)
    assert [item.where for item in stream] == [f"{path} line 1", f"{path} line 3"]
    with pytest.raises(UserError, match=r"every answer \(1\) is bad by its label"):
        read_rows(write(tmp_path, labelled(False)), data=LEARN)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [ASKED, SAID]},
        {"conversations": [turn("human", "a"), turn("gpt", "b")]},
        {"instruction": "a", "output": "b"},
    ],
)
@pytest.mark.parametrize("column", ["label", "kto_tag"])
def test_labels_of_every_kind_of_row(tmp_path, fields, column):
    good, bad = (labelled(label, column, **fields) for label in (True, False))
    with pytest.raises(UserError, match=f'"{column}" is false'):
        read_rows(write(tmp_path, good, bad))
    assert len(read_rows(write(tmp_path, good, bad), data=LEARN).rows) == 1


def test_labels_as_text_in_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,label\na,b,True\nc,d,False\n")
    with pytest.raises(UserError, match='line 3: "label" is false'):
        read_rows(path)


def test_labels_that_are_classes_are_a_column_like_any_other(tmp_path):
    rows = [{"prompt": "a", "completion": "b", "label": n} for n in (0, 1)]
    read = read_rows(write(tmp_path, *rows))
    assert len(read.rows) == 2
    assert read.notes == (f"{tmp_path}/rows.jsonl: not used: column 'label'.",)
    texts = [{"text": "a", "label": value} for value in (True, False)]
    assert len(read_rows(write(tmp_path, *texts)).rows) == 2


def test_images_are_refused_by_name(tmp_path):
    row = {"messages": [ASKED, SAID], "images": ["a.jpg"]}
    path = write(tmp_path, {**row, "images": []}, row)
    with pytest.raises(UserError, match='line 2: "images" is not empty, and only text is read'):
        read_rows(path)
    assert [item.fault is None for item in RowStream(path)] == [True, False]
