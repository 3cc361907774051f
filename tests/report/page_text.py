"""What a reader sees of a page, without a browser: its text, its elements, its figures."""

import html
import json
import re
from html.parser import HTMLParser


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.text, self.elements, self.scripts, self._inside = [], [], [], None

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = (tag, dict(attrs))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside[0] == "script":
            self.scripts.append((self._inside[1], data))


def read(page: str) -> _Reader:
    """Parse once; ``elements`` are (tag, attributes), ``scripts`` are (attributes, source)."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


def visible(page: str) -> str:
    """All text outside scripts and styles, spaces collapsed."""
    text = " ".join(read(page).text)
    return re.sub(r"\s+([,.;:)])", r"\1", re.sub(r"\s+", " ", html.unescape(text)))


def figures(page: str) -> dict:
    """The figures as the page's script gets them."""
    data = [s for attrs, s in read(page).scripts if attrs.get("type") == "application/json"]
    assert len(data) == 1
    return json.loads(data[0])
