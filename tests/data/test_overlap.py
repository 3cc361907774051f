"""Which held-out rows stand in the training rows, of two files read as streams."""

import json
import random

import numpy as np
import pytest

from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.row import Row
from heldout.data.build_index import build_index
from heldout.data.index import IndexedRow
from heldout.data.overlap import cut_rows, find_overlap, unrelated
from heldout.data.pairs import Here
from heldout.data.stream import RowStream

WORDS = [f"word{number}" for number in range(400)]


def text(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=60))


def stream(path, texts) -> RowStream:
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    return RowStream(path)


def test_leaked_rows_and_copies_are_named_by_their_place_in_the_source(tmp_path):
    train = stream(tmp_path / "train.jsonl", [text(1), "", text(2), text(1), text(3)])
    heldout = stream(tmp_path / "heldout.jsonl", [text(9), text(3), text(8) + " " + text(2)])
    overlap = find_overlap(train, heldout, threshold=0.6)
    assert overlap.num_train_rows == 4  # the empty row cannot be trained on
    assert overlap.num_distinct == 3
    assert overlap.duplicate_share == 0.25
    assert overlap.leaked == {1, 2}
    assert overlap.leaked_share == pytest.approx(2 / 3)
    assert overlap.copies == {0: 2, 3: 2}
    assert overlap.warnings == ()


def test_every_leaked_row_and_every_copy_is_named_however_many_there_are(tmp_path):
    texts = [f"row {number}" for number in range(10_100)]
    train = stream(tmp_path / "train.jsonl", [*texts, *texts])
    overlap = find_overlap(train, stream(tmp_path / "heldout.jsonl", texts), threshold=0.6)
    assert overlap.leaked == set(range(10_100))
    assert overlap.copies == dict.fromkeys(range(20_200), 2)


def test_what_held_out_rows_repeat_among_themselves_is_no_copy_of_a_training_row(tmp_path):
    train = stream(tmp_path / "train.jsonl", [text(1), text(2), text(3)])
    heldout = stream(tmp_path / "heldout.jsonl", [text(9), text(9)])
    assert find_overlap(train, heldout, threshold=0.6).copies == {}


def test_a_source_without_a_row_to_train_on_is_refused(tmp_path):
    train = stream(tmp_path / "train.jsonl", ["", " "])
    heldout = stream(tmp_path / "heldout.jsonl", [text(1)])
    with pytest.raises(UserError, match=r"line 1: .*\. No row can be trained on, of 2\. "):
        find_overlap(train, heldout, threshold=0.6)


@pytest.mark.parametrize(("end", "num_cut"), [("and th", 6), ("it ends.", 0), ("so“ it is”\n", 0)])
def test_rows_of_one_length_look_cut_where_they_end_within_a_sentence(tmp_path, end, num_cut):
    texts = [f"{letter} " * 60 + end for letter in "abcdef"]
    others = ["x " * length + "y." for length in range(10, 40)]
    rows = (IndexedRow(0, n, "", str(n), text) for n, text in enumerate([*texts, *others]))
    index = build_index(rows, tmp_path, threshold=0.6, engine=Here(), progress=Progress())
    num, warning = cut_rows("train", index, np.arange(len(index)))
    assert num == num_cut
    assert warning.startswith(f"6 train rows have exactly {120 + len(end)} characters") == (num > 0)
    assert cut_rows("train", index, np.arange(6, len(index))) == (0, "")
    assert cut_rows("train", index, np.zeros(0, dtype=np.int64)) == (0, "")


def test_rows_that_share_a_span_with_training_rows_are_related():
    def row(place: int, words: str) -> Row:
        return Row(place, ({"role": "text", "content": words},), f"row-{place}")

    train = [row(0, text(1)), row(1, text(2))]
    rows = [row(0, text(5)), row(1, text(6) + " " + text(2)), row(2, text(1))]
    assert unrelated(rows, train, 0.6) == rows[:1]
