"""What a character, a word, an item and a sentence of a text is, in every script.

By Unicode properties. Where a script puts no spaces between words (Han, kana, Thai, Lao, Khmer,
Myanmar) each letter with its marks is a word, as in Unicode's word boundaries without a dictionary
(UAX 29); docs/decisions has the reasons. Joining the parts of a text gives it back.
"""

import re
import unicodedata

import regex

ALONE = (
    r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Bopomofo}\p{Line_Break=SA}]"
    r"&&[\p{L}\p{Nl}\p{No}]]"
)
"""A set of ``regex`` (its V1): letters that are words by themselves."""

TOGETHER = rf"[[\p{{L}}\p{{N}}]--{ALONE}]"
"""Letters and digits that make words together."""

WORD = regex.compile(
    rf"(?V1){ALONE}\p{{M}}*+"
    rf"|{TOGETHER}[{TOGETHER}\p{{M}}\u200c\u200d]*+(?:['’]{TOGETHER}[{TOGETHER}\p{{M}}]*+)*+"
)
LETTER = regex.compile(r"[\p{L}\p{N}]")
HAN = regex.compile(r"\p{Han}")
HAN_RUN = regex.compile(r"\p{Han}+")
IS_ALONE = regex.compile(rf"(?V1){ALONE}")
CHARACTER = regex.compile(r"\X")
"""What readers take for one character: a letter with its marks, an emoji with its parts."""

# Coarse, and faster than properties: where there is nothing of it, nothing is to be looked for.
_MAY_BE_ALONE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u1aaf\u2e80-\ua4cf\ua700-\uabff\uf900-\U0003ffff]"
)
_MAY_BE_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")
_WIDE = rf"[{ALONE}[[\p{{P}}]&&[\p{{East_Asian_Width=W}}\p{{East_Asian_Width=F}}]]]"
_NEEDLESS_SPACE = regex.compile(rf"(?V1)(?<={_WIDE}\p{{M}}*) | (?={_WIDE})")


def words(text: str) -> list[str]:
    """Words as they stand; punctuation is none."""
    return WORD.findall(text)


def is_written_apart(word: str) -> bool:
    """Whether a word stands between spaces: whether none of it is of a script without them."""
    return not IS_ALONE.search(word)


def scripts(text: str) -> set[str]:
    """The scripts of its letters, as the names of these begin: LATIN, CJK, HANGUL, ..."""
    letters = filter(str.isalpha, set(unicodedata.normalize("NFKC", text)))
    return {re.split("[ -]", unicodedata.name(letter, ""))[0] for letter in letters}


def folded(text: str) -> str:
    """What equal texts have in common: not width, case, white space or invisible characters.

    NFKC and case folding; white space becomes one space, none beside scripts without spaces.
    """
    if text.isascii():
        text = text.lower()
        if text.isprintable() and "  " not in text:  # no white space but single spaces
            return text.strip(" ")
        return " ".join(text.split())
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    if _MAY_BE_INVISIBLE.search(text):
        text = _INVISIBLE.sub("", text)
    text = " ".join(text.casefold().split())
    if _MAY_BE_ALONE.search(text):
        text = _NEEDLESS_SPACE.sub("", text)
    return text


ITEM = regex.compile(rf"(?V1){ALONE}\p{{M}}*+|[^\s{ALONE}]++")
"""What ``items`` finds."""


def items(text: str) -> list[str]:
    """What stands between, item, what stands between, ..., item, what stands between.

    An item is a run between spaces, with its punctuation; in scripts without spaces a letter with
    its marks, and what stands between two of them.
    """
    found, end = [], 0
    for match in ITEM.finditer(text):
        found += [text[end : match.start()], match[0]]
        end = match.end()
    return [*found, text[end:]]


# Sentences

_CLOSING = r"[\p{Pe}\p{Pf}\"'”’]*+"
_WIDE_END = r"[[\p{Sentence_Terminal}；]--[.!?]]"  # needs no space after it
_NO_ABBREVIATION = (
    r"(?<!\p{Lu})(?<!\b\p{Lu}\.)(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\be\.g)"
    r"(?<!\bi\.e)(?<!\bडॉ)(?<!\b\p{Arabic})(?<![\p{Thai}\p{Lao}])"
)
_BEGINS = r"[\p{Pi}\p{Ps}\"'¿¡]*[\p{Lu}\p{Lt}\p{Lo}\p{Nd}]"
_AFTER_WIDE = r"(?P<gap>\s*+)(?=[^\s,，、:：])"
_AFTER_NARROW = rf"(?P<gap>[ \t]++)(?={_BEGINS})"
_STOP = regex.compile(
    rf"""(?V1)
    (?P<quoted>
        “[^“”\n]{{0,600}}+” | 「[^「」\n]{{0,600}}+」 | 『[^『』\n]{{0,600}}+』
        | «[^«»\n]{{0,600}}+» | （[^（）\n]{{0,600}}+） | \([^()\n]{{0,600}}+\)
        | (?<![\w"])"(?=\S)[^"\n]{{0,600}}+"
    )
    | {_WIDE_END}[{_WIDE_END}.!?…]*+{_CLOSING}{_AFTER_WIDE}
    | (?<={ALONE}\p{{M}}*)(?:[!?][!?.…]*+|[…⋯]{{2,}}+[!?]*+|\.{{6,}}+){_CLOSING}{_AFTER_WIDE}
    | {_NO_ABBREVIATION}[.!?…]++{_CLOSING}{_AFTER_NARROW}
    | (?P<gap>[ \t]*+\n\s*+)(?=\S)
    """,
    regex.VERBOSE,
)
_ENDS_WIDE = regex.compile(rf"(?V1)(?:{_WIDE_END}|(?<={ALONE}\p{{M}}*)[!?]|[…⋯]{{2}}){_CLOSING}$")
_ENDS_NARROW = regex.compile(rf"[.!?…]{_CLOSING}$")
_AFTER_QUOTED_WIDE = regex.compile(_AFTER_WIDE)
_AFTER_QUOTED_NARROW = regex.compile(rf"(?V1){_AFTER_NARROW}|(?P<gap>[ \t]*+\n\s*+)(?=\S)")


def sentences(text: str) -> list[str]:
    """Sentence, what stands between, sentence, ..., sentence: an odd number of parts.

    Quotations and parentheses stay whole within a line, and so do a quotation that begins a
    sentence and who says it. Thai has no marks of its own: there a line is a sentence.
    """
    found, start = [], 0
    for match in _STOP.finditer(text):
        if match.start() < start:  # a line's end, which a quotation before it has taken
            continue
        gap = _gap_after_quoted(text, start, match) if match["quoted"] else match.span("gap")
        if gap:
            found += [text[start : gap[0]], text[gap[0] : gap[1]]]
            start = gap[1]
    return [*found, text[start:]]


def _gap_after_quoted(text: str, start: int, quoted: regex.Match[str]) -> tuple[int, int] | None:
    """What follows a quotation that ends a sentence; ``start`` is where the sentence began."""
    end = quoted.end()
    if _ENDS_WIDE.search(quoted[0]):
        after = _AFTER_QUOTED_WIDE.match(text, end)
        goes_on = quoted.start() == start and after and text[after.end()].isalpha()
        return None if after is None or (goes_on and not after["gap"]) else after.span("gap")
    if _ENDS_NARROW.search(quoted[0]):
        after = _AFTER_QUOTED_NARROW.match(text, end)
        return after.span("gap") if after else None
    return None


def paragraphs(text: str) -> list[str]:
    """Paragraph, blank lines, paragraph, ..., paragraph: an odd number of parts."""
    return re.split(r"(\n[ \t]*\n\s*)", text)
