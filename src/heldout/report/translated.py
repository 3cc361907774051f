"""A finished page in the language in use.

Text between tags and the attributes that are read out pass `heldout.core.language.say`; what stands
in an element with ``translate="no"`` or ``dir="auto"`` is data and stays as it is.
"""

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

from markupsafe import escape

from heldout.core.language import language, say

LANGUAGE_TAGS = {"en": "en", "zh": "zh-CN"}
_WORDS_OF_FIGURES = ("title", "ticks", "suffix", "name", "hover", "label", "text", "value")
_READ_OUT = ("aria-label", "alt", "title", "placeholder")
# Elements without an end; those of a drawing end in "/>" and are told by that.
_VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta", "wbr"))
# What holds data: settings and scripts, rows (whose direction is their own), whatever is marked so.
_DATA = frozenset(("script", "style", "code"))
_MARKS = (("translate", "no"), ("dir", "auto"))


def translated_page(page: str) -> str:
    """The page with its words in the language in use; the page itself in English."""
    if language() == "en":
        return page
    translator = _Translator()
    translator.feed(page)
    translator.close()
    return "".join(translator.done)


def translated_figure(value: Any, name: str = "") -> Any:
    """A figure as the page's script reads it, its words in the language in use."""
    if isinstance(value, Mapping):
        return {key: translated_figure(each, key) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [translated_figure(each, name) for each in value]
    if isinstance(value, str) and name in _WORDS_OF_FIGURES:
        return "\n".join(map(say, value.split("\n")))
    return value


class _Translator(HTMLParser):
    """Writes the page again, token by token."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.done: list[str] = []
        self._text: list[str] = []
        self._open: list[tuple[str, bool]] = []  # elements, and whether they hold data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_text()
        written = self.get_starttag_text() or ""
        holds_data = self._in_data() or tag in _DATA or any(each in _MARKS for each in attrs)
        if tag == "html":
            attrs = [(k, LANGUAGE_TAGS[language()] if k == "lang" else v) for k, v in attrs]
            written = _start_tag(tag, attrs, written)
        elif not holds_data and any(name in _READ_OUT for name, _ in attrs):
            attrs = [(k, say(v) if k in _READ_OUT and v else v) for k, v in attrs]
            written = _start_tag(tag, attrs, written)
        self.done.append(written)
        if tag not in _VOID and not written.endswith("/>"):
            self._open.append((tag, holds_data))

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        self._end_text()
        self.done.append(f"</{tag}>")
        while self._open:
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] in ("script", "style"):
            self.done.append(data)
        else:
            self._text.append(data)

    def handle_decl(self, decl: str) -> None:
        self.done.append(f"<!{decl}>")

    def close(self) -> None:
        super().close()
        self._end_text()

    def _in_data(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    def _end_text(self) -> None:
        text = "".join(self._text)
        self._text.clear()
        if text:
            self.done.append(str(escape(text if self._in_data() else say(text))))


def _start_tag(tag: str, attrs: list[tuple[str, str | None]], written: str) -> str:
    inside = "".join(f" {k}" if v is None else f' {k}="{escape(v)}"' for k, v in attrs)
    return f"<{tag}{inside}{'/>' if written.endswith('/>') else '>'}"
