"""Rows on a page: the language that fonts are chosen by, and where a long text is cut.

One code point of Han is drawn in one way in China, in another in Taiwan, Japan or Korea; a browser
goes by ``lang``. What is told is told by the script: Latin letters have no language of their own.
"""

import regex
from markupsafe import Markup, escape

from heldout.core.graphemes import boundary_before

_LOOKED_AT = 2000  # code points
MOST_SAMPLES = 16  # that a page shows
MOST_SHOWN = 16_000  # code points of them together
_HAN, _HANGUL = regex.compile(r"\p{Han}"), regex.compile(r"\p{Hangul}")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
# Frequent characters that have one form in simplified and another in traditional Chinese.
_SIMPLIFIED = frozenset("这们个国说时为会对过发后来学经么动还进样种长问机开见无与书听东车门马鸟鱼")
_TRADITIONAL = frozenset("這們個國說時為會對過發後來學經麼動還進樣種長問機開見無與書聽東車門馬鳥魚")


_OTHERS = {
    tag: regex.compile(rf"\p{{{name}}}")
    for tag, name in (
        ("th", "Thai"),
        ("lo", "Lao"),
        ("km", "Khmer"),
        ("my", "Myanmar"),
        ("und-Deva", "Devanagari"),
        ("und-Arab", "Arabic"),
        ("he", "Hebrew"),
        ("und-Cyrl", "Cyrillic"),
        ("el", "Greek"),
    )
}
LEAST_SHARE = 0.1  # of a text's characters: less is a quotation


def language_tag(text: str) -> str:
    """BCP 47 tag of the text, "" where its script does not tell."""
    text = text[:_LOOKED_AT]
    least = LEAST_SHARE * sum(not character.isspace() for character in text)
    han, kana, hangul = (len(each.findall(text)) for each in (_HAN, _KANA, _HANGUL))
    if text and hangul > max(least, kana):
        return "ko"
    if text and han + kana > least:
        return "ja" if kana > 0.1 * han else _chinese(text)
    counts = {tag: len(pattern.findall(text)) for tag, pattern in _OTHERS.items()}
    tag = max(counts, key=lambda name: counts[name])
    return tag if counts[tag] > least else ""


def _chinese(text: str) -> str:
    traditional = sum(character in _TRADITIONAL - _SIMPLIFIED for character in text)
    simplified = sum(character in _SIMPLIFIED - _TRADITIONAL for character in text)
    return "zh-Hant" if traditional > simplified else "zh-Hans"


def language_attribute(text: str) -> Markup:
    """`` lang="..."`` of an element that holds the text and nothing else."""
    return Markup(' lang="{}"').format(escape(language_tag(text)))


def clipped(text: str, most: int) -> str:
    """The text, or its beginning up to ``most`` code points and a whole character, and an ellipsis.

    The ellipsis says that more follows.
    """
    return text if len(text) <= most else f"{text[: boundary_before(text, most)]}…"


def ending(text: str, most: int) -> str:
    """The text, or its end of about ``most`` code points from a whole character on."""
    return text if len(text) <= most else f"…{text[boundary_before(text, len(text) - most) :]}"


def shown_of_each(num_texts: int) -> int:
    """Code points of each of the texts of a page that keep it small; its files hold all."""
    return max(200, MOST_SHOWN // max(1, num_texts))


def is_spaceless(text: str) -> bool:
    """Whether the words of the text stand without spaces, so that its characters are counted."""
    tag = language_tag(text)
    return tag.startswith(("zh", "ja", "th", "lo", "km", "my"))
