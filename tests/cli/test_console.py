import io

import pytest

from heldout.cli.console import Console, Table
from heldout.cli.show import show_plan
from heldout.core.language import using
from heldout.jobs.kit.dry_run import DryRun


def printed(shown: object, language: str, width: int = 30) -> str:
    out = io.StringIO()
    with using(language):
        Console(file=out, width=width).print(shown, markup=False)
    return out.getvalue()


def test_labels_keep_their_column():
    assert printed("report      out/report.html", "en") == "report      out/report.html\n"
    assert printed("report      out/report.html", "zh") == "报告        out/report.html\n"


def test_paths_stay_as_they_are():
    assert printed("report  kept/report", "zh").endswith("  kept/report\n")


def test_names_of_emoji_in_a_row_stay_words():
    assert printed("row 3: a :fire: and a :warning:", "en", width=60) == (
        "row 3: a :fire: and a :warning:\n"
    )


def test_chinese_lines_are_left_to_the_terminal_and_cells_are_never_cut():
    sentence = "No held-out rows were given, so nothing could leak."
    assert printed(sentence, "en").count("\n") == 2
    assert printed(f"{sentence} {sentence}", "zh").count("\n") == 1
    with using("zh"):
        table = Table(box=None)
        table.add_column("value")
        table.add_row(sentence)
    assert "…" not in printed(table, "zh", width=20)


@pytest.mark.parametrize(
    ("mode", "num_test", "words"),
    [
        ("split", 4, ": split"),
        ("cross_validation", 0, ": cross-validation, no sealed test"),
        ("cross_validation", 4, ": cross-validation, and a sealed test"),
    ],
)
def test_a_plan_tells_of_a_sealed_test(capsys, mode, num_test, words):
    counts = {"train": 12, "validation": 0, "test": num_test}
    show_plan(DryRun(counts, counts, mode, 2, 40, 2.0, 9, 9, "1 forward", []), as_json=False)
    rows = " ".join(capsys.readouterr().out.split())
    assert f"{words} parameters" in rows
