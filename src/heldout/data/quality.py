"""What is wrong with a text by itself: broken characters, cuts, special tokens, personal data.

Personal data is found by its form alone, with a checksum where there is one, and told masked: a
report should not spread it. A pattern that fits is a suspicion, no proof; names are not found.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

FindingKind = Literal["encoding", "truncated", "template", "personal"]


@dataclass(frozen=True)
class TextFinding:
    """``what`` names the kind of personal data or the fault; ``shown`` is an excerpt, masked."""

    kind: FindingKind
    what: str
    shown: str


def examine(text: str) -> Iterator[TextFinding]:
    """All findings in one text; of each kind of personal data at most ten. 5 us a kilobyte."""
    if not text.isascii() and (found := _BROKEN.search(text)):
        yield TextFinding("encoding", _name_of_broken(found[0]), _around(text, found))
    elif found := _CONTROL.search(text):
        yield TextFinding("encoding", "a control character", _around(text, found))
    if "```" in text and text.count("```") % 2:
        yield TextFinding("truncated", "a code block that is not closed", text[-80:])
    if ("<" in text or "[/" in text) and (found := _SPECIAL.search(text)):
        yield TextFinding("template", f"the special token {found[0]} as text", _around(text, found))
    if "@" in text:
        yield from _matches(_around_each("@", text), "e-mail address")
    if _num_digits(text) >= 4:
        runs = "\n".join(found[0] for found in _NUMBER_RUN.finditer(text))
        if runs:
            for what in _NUMBERS:
                yield from _matches(runs, what)
        yield from _matches(text, "IBAN")
    elif text.count(":") >= 7:
        yield from _matches(text, "IP address")


def _around_each(mark: str, text: str) -> str:
    """Only what can belong to an address, so that long texts are not searched from every place."""
    pieces: list[str] = []
    place = text.find(mark)
    while place >= 0 and len(pieces) < 100:
        before = re.split(r"[^A-Za-z0-9._%+-]", text[max(0, place - 65) : place])[-1]
        pieces.append(before + text[place : place + 120].split(maxsplit=1)[0])
        place = text.find(mark, place + 1)
    return "\n".join(pieces)


def _num_digits(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return len(data) - len(data.translate(None, b"0123456789"))


# With what stands around, which tells a number of another kind: a version, a longer number.
_NUMBER_RUN = re.compile(r"[^\s,;]?[+(]?\d[\d\-. ():]{5,}[\dXx][^\s,;]?")
_BROKEN = re.compile("\ufffd|Ã[\x80-\xbf¡-¿]|â€[\x80-\xbf™œžŸ\u0080-\u00bf]|Â[\xa0-\xbf]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_SPECIAL = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|begin_of_text"
    r"|end_of_text|assistant|user|system|end)\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<\|endofprompt\|>"
)


def _name_of_broken(found: str) -> str:
    if found == "\ufffd":
        return "a replacement character, where a character was lost"
    return "characters as of UTF-8 read as Latin-1"


def _around(text: str, found: re.Match[str]) -> str:
    return text[max(0, found.start() - 30) : found.end() + 30]


# Personal data


def _matches(text: str, what: str) -> Iterator[TextFinding]:
    pattern, holds = _PATTERNS[what]
    count = 0
    for found in pattern.finditer(text):
        if holds(found[0]):
            yield TextFinding("personal", what, masked(found[0]))
            count += 1
            if count == 10:
                return


def masked(value: str) -> str:
    """First and last character of each run of letters or digits, the rest as stars."""
    return re.sub(r"\w{3,}", lambda m: m[0][0] + "*" * (len(m[0]) - 2) + m[0][-1], value)


def luhn(digits: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)


def _is_card(value: str) -> bool:
    digits = _digits(value)
    known = re.match(r"4|5[1-5]|2[2-7]|3[47]|6(?:011|5|2)|3(?:0[0-5]|[689])|35", digits)
    return 13 <= len(digits) <= 19 and bool(known) and len(set(digits)) > 1 and luhn(digits)


def _is_ip(value: str) -> bool:
    if ":" in value:
        import ipaddress

        try:
            return ipaddress.IPv6Address(value).is_global
        except ValueError:
            return False
    octets = [int(part) for part in value.split(".")]
    if any(octet > 255 for octet in octets) or octets[0] in (0, 10, 127) or octets[0] >= 224:
        return False
    is_private = octets[:2] == [192, 168] or (octets[0] == 172 and 16 <= octets[1] < 32)
    return not is_private and max(octets) > 7  # else a version or a section


def _is_phone(value: str) -> bool:
    digits = _digits(value)
    if value.startswith("+"):
        return 8 <= len(digits) <= 15
    if re.fullmatch(r"1[3-9]\d{9}", value):
        return True  # a mobile number of China
    # North America: area code and exchange start with 2 to 9.
    national = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return len(national) == 10 and national[0] in "23456789" and national[3] in "23456789"


def _is_chinese_id(value: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(value, weights, strict=False))
    return "10X98765432"[total % 11] == value[-1].upper()


def _is_social_security(value: str) -> bool:
    area, group, serial = value.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_iban(value: str) -> bool:
    plain = value.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    number = "".join(str(int(character, 36)) for character in plain[4:] + plain[:4])
    return int(number) % 97 == 1


_PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "e-mail address": (
        re.compile(
            r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b"
        ),
        lambda value: (
            not re.search(r"@(?:.*\.)?(?:example\.\w+|\w+\.(?:example|invalid|test))$", value)
        ),
    ),
    "card number": (re.compile(r"(?<![\d.\-])\d(?:[ -]?\d){12,18}(?![\d\-])"), _is_card),
    "IBAN": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban),
    "identity number": (
        re.compile(
            r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?!\w)"
        ),
        _is_chinese_id,
    ),
    "social security number": (
        re.compile(r"(?<![\d\-])\d{3}-\d{2}-\d{4}(?![\d\-])"),
        _is_social_security,
    ),
    "phone number": (
        re.compile(
            r"\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,4}(?:[ .\-]?\d{2,4}){2,4}(?!\d)"
            r"|(?<![\d\-.])(?:1[ .\-])?(?:\(\d{3}\) ?|\d{3}[.\-])\d{3}[.\-]\d{4}(?![\d\-])"
            r"|(?<!\d)1[3-9]\d{9}(?!\d)"
        ),
        _is_phone,
    ),
    "IP address": (
        re.compile(
            r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]|\.\d)"
            r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])"
        ),
        _is_ip,
    ),
}
_NUMBERS = [name for name in _PATTERNS if name not in ("e-mail address", "IBAN")]
