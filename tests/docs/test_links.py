"""Links between pages lead somewhere where people read them: in the repository, on a code host."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "docs/decisions", "experiments/*", "examples/*", "findings", "findings/*")
PAGES = sorted({path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md")})
LINK = re.compile(r"\]\(([^)\s]+)\)")
MADE = ROOT / "docs" / "generated"  # by `make docs`, not in git


def prose(path: Path) -> str:
    """A page without its blocks and spans of code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as code hosts make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ +(.+)$", text, flags=re.M)}


def slug(heading: str) -> str:
    words = re.sub(r"\]\([^)]*\)|[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


def leads_nowhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or target.is_relative_to(MADE):
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    links = [each for each in LINK.findall(prose(page)) if not re.match(r"\w+:", each)]
    assert [link for link in links if leads_nowhere(page, link)] == []


def test_dead_links_are_told():
    page = ROOT / "docs" / "fit.md"
    assert not leads_nowhere(page, "fit.md#what-happens-in-order")
    for link in ("gone.md", "generated/catalog.md", "fit.md#gone", "#gone"):
        assert leads_nowhere(page, link), link
