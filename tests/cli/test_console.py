import io

from heldout.cli.console import Console, Table
from heldout.core.language import using


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


def test_chinese_lines_are_left_to_the_terminal_and_cells_are_never_cut():
    sentence = "No held-out rows were given, so nothing could leak."
    assert printed(sentence, "en").count("\n") == 2
    assert printed(f"{sentence} {sentence}", "zh").count("\n") == 1
    with using("zh"):
        table = Table(box=None)
        table.add_column("value")
        table.add_row(sentence)
    assert "…" not in printed(table, "zh", width=20)
