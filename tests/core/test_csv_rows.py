import csv
import io

import pytest

from heldout.core.csv_rows import BrokenCsv, csv_rows


def test_rows_know_their_first_and_last_line():
    text = 'a,b\n"one\ntwo",2\n\n ,\n' + "x" * 200_000 + ",4\n"
    rows = list(csv_rows(io.StringIO(text, newline="")))
    assert [(row.first_line, row.last_line) for row in rows] == [
        (1, 1),
        (2, 3),
        (4, 4),
        (5, 5),
        (6, 6),
    ]
    assert rows[1].cells == ["one\ntwo", "2"]
    assert [row.is_blank for row in rows] == [False, False, True, True, False]
    assert len(rows[4].cells[0]) == 200_000


def test_broken_quoting_names_the_line_and_leaves_the_limit_as_it_was():
    limit = csv.field_size_limit()
    with pytest.raises(BrokenCsv) as caught:
        list(csv_rows(io.StringIO('a;b\n1;2\n"open;3\n4;5\n', newline=""), ";"))
    assert caught.value.line == 3
    assert csv.field_size_limit() == limit
