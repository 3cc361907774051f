"""Broken characters: text that was read in another encoding than it was written in.

Suspected runs are written and read back the other way: what is UTF-8 then, and nothing else, was
UTF-8 before. Sound text does not come out so, in any language.
"""

import html
import re

# What the bytes 80 to BF are in Latin-1 and in Windows-1252.
_WINDOWS = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_NEXT = f"[\x80-\xbf{_WINDOWS}]"
_LATIN = re.compile(
    f"Ã[\x80-\xbf]|â€[\x80-\xbf™œžŸ]|Â[\xa0-\xbf]"
    f"|(?:[\xc2-\xdf]{_NEXT}|[\xe0-\xef]{_NEXT}{{2}}|[\xf0-\xf4]{_NEXT}{{3}}){{2,}}"
)
_LOST_AS_GBK = re.compile("锟斤拷")
_GBK_RUN = re.compile("[^\x00-\x7f]{3,}")
_THREE_BYTES = re.compile(b"(?:(?:\xe0[\xa0-\xbf]|[\xe1-\xef][\x80-\xbf])[\x80-\xbf])+")
# What makes up three quarters of a run stands somewhere within two bytes of the next such.
_NEAR_ONE_ANOTHER = re.compile(
    b"[\xe0-\xef][\x80-\xbf][\x80-\xbf].{0,2}[\xe0-\xef][\x80-\xbf][\x80-\xbf]", re.S
)
_ESCAPED = re.compile(
    r"(?:\\u[0-9a-fA-F]{4}){2,}|(?:\\x[0-9a-fA-F]{2}){3,}|(?:&#(?:\d{3,6}|x[0-9a-fA-F]{3,5});){2,}"
)
_ESCAPES = (  # what the pattern before begins with, to be told fast where there is none
    (r"\u", re.compile(r"\\u[0-9a-fA-F]{4}\\u")),
    (r"\x", re.compile(r"\\x[0-9a-fA-F]{2}\\x")),
    ("&#", re.compile(r"&#(?:\d{3,6}|x[0-9a-fA-F]{3,5});&#")),
)

REPLACEMENT = "a replacement character, where a character was lost"
AS_LATIN = "characters as of UTF-8 read as Latin-1"
AS_GBK = "characters as of UTF-8 read as GBK"
ESCAPED = "escape sequences in place of characters"


def broken_characters(
    text: str, may_be_latin: bool = True, may_be_gbk: bool = True
) -> tuple[str, re.Match[str]] | None:
    """What is broken, and the first place; ``may_be`` as data/signs.py tells.

    Cost: 15 us for a kilobyte that is not ASCII, where there is nothing.
    """
    if not text.isascii():
        if "\ufffd" in text and (found := re.search("\ufffd", text)):
            return REPLACEMENT, found
        if may_be_latin and (found := _LATIN.search(text)):
            return AS_LATIN, found
        if "锟" in text and (found := _LOST_AS_GBK.search(text)):
            return AS_GBK, found
        if may_be_gbk and _NEAR_ONE_ANOTHER.search(text.encode("gb18030", "ignore")):
            for run in _GBK_RUN.finditer(text):
                if _was_utf8(run[0].encode("gb18030", "ignore")):
                    return AS_GBK, run
    if ("\\" in text or "&#" in text) and any(
        start in text and begins.search(text) for start, begins in _ESCAPES
    ):
        for found in _ESCAPED.finditer(text):
            plain = _unescaped(found[0])
            if plain and all(character.isalpha() and character > "\u024f" for character in plain):
                return ESCAPED, found
    return None


def _was_utf8(data: bytes) -> bool:
    """Whether three quarters of some bytes are characters of three bytes, and two or more are."""
    runs = [found.span() for found in _THREE_BYTES.finditer(data)]
    size = sum(stop - start for start, stop in runs)
    return size >= 6 and 4 * size >= 3 * len(data)


def _unescaped(run: str) -> str:
    if run[0] == "&":
        return html.unescape(run)
    if run[1] == "u":
        return "".join(chr(int(code, 16)) for code in run.split("\\u")[1:])
    data = bytes(int(code, 16) for code in run.split("\\x")[1:])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
