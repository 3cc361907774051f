"""The rows that a training is measured on."""

from heldout.core.row import Row
from heldout.jobs.kit.parts import FEWEST_BESIDE, Texts


def test_beside_held_out_rows_as_many_training_rows_are_measured():
    rows = [Row(index, ({"role": "text", "content": f"row {index}"},), "") for index in range(500)]
    for num_held_out, num_beside in ((0, FEWEST_BESIDE), (60, 60), (200, 100)):
        texts = Texts(rows, rows[:num_held_out], rows[100:200])
        assert len(texts.beside) == num_beside
        assert texts.beside == sorted(texts.beside, key=lambda row: row.index)
        assert {row.index for row in texts.beside} <= set(range(100, 200))
        assert texts.beside == Texts(rows, rows[:num_held_out], rows[100:200]).beside
    few, more = (Texts(rows, rows[:num], rows).beside for num in (50, 90))
    assert {row.index for row in few} < {row.index for row in more}, (
        "curves of other lengths differ"
    )
