"""What the page of troubleshooting quotes is what the code says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def texts() -> list[str]:
    """Every constant part of every text in the code."""
    return [
        node.value
        for path in (ROOT / "src" / "heldout").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def quotes() -> list[str]:
    """The first column of the tables."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.*?`) \|", page, flags=re.M)
    return [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]


def test_every_quoted_refusal_is_one_of_the_code():
    said = "\n".join(texts())
    found = quotes()
    assert len(found) > 40
    pieces = [piece.strip() for quote in found for piece in quote.split("...")]
    assert [piece for piece in pieces if piece not in said] == []
