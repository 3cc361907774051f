"""What is wrong with a text by itself: broken characters, cuts, special tokens, personal data.

Personal data is found by its form alone, with a checksum where there is one, and told masked: a
report should not spread it. A pattern that fits is a suspicion, no proof; names are not found.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from heldout.data.mojibake import broken_characters
from heldout.data.signs import signs_of

FindingKind = Literal["encoding", "truncated", "template", "personal"]


@dataclass(frozen=True)
class TextFinding:
    """``what`` names the kind of personal data or the fault; ``shown`` is an excerpt, masked."""

    kind: FindingKind
    what: str
    shown: str


def examine(text: str) -> Iterator[TextFinding]:
    """All findings in one text; of each kind of personal data at most ten."""
    return (found for _, found in examine_all([text]))


def examine_all(texts: Sequence[str]) -> Iterator[tuple[int, TextFinding]]:
    """The findings in each text, with its place. Cost: 10 us a kilobyte."""
    plain = [_with_plain_digits(text) for text in texts]
    signs = signs_of(plain)
    marks = zip(
        signs.control_R.tolist(),
        signs.latin_R.tolist(),
        signs.other_R.tolist(),
        signs.number_R.tolist(),
        signs.iban_R.tolist(),
        signs.num_digits_R.tolist(),
        strict=True,
    )
    for place, (control, latin, other, number, iban, num_digits) in enumerate(marks):
        text = texts[place]
        is_ascii = text.isascii()
        if control or not is_ascii or any(map(text.__contains__, _MARKS_OF_FAULTS)):
            for found in _faults(text, control, latin, other):
                yield place, found
        text = plain[place]
        if not is_ascii and _FOREIGN_DIGIT.search(text):
            number = iban = True
        if "@" in text or (number or iban if num_digits >= 4 else text.count(":") >= 7):
            for found in _personal(text, number, iban, num_digits):
                yield place, found


def _faults(
    text: str, may_hold_control: bool, may_be_latin: bool, may_be_gbk: bool
) -> Iterator[TextFinding]:
    broken = broken_characters(text, may_be_latin, may_be_gbk)
    if broken:
        yield TextFinding("encoding", broken[0], _around(text, broken[1]))
    elif may_hold_control and (found := _CONTROL.search(text)):
        yield TextFinding("encoding", "a control character", _around(text, found))
    if "```" in text and text.count("```") % 2:
        yield TextFinding("truncated", "a code block that is not closed", text[-80:])
    if ("<" in text or "[/" in text) and (found := _SPECIAL.search(text)):
        yield TextFinding("template", f"the special token {found[0]} as text", _around(text, found))


def _personal(
    text: str, may_hold_number: bool, may_hold_iban: bool, num_digits: int
) -> Iterator[TextFinding]:
    if "@" in text:
        yield from _matches(_around_each("@", text), "e-mail address")
    if num_digits >= 4:
        if may_hold_number:
            found = _NUMBER_RUN.finditer(text)
            runs = "\n".join(_with_neighbors(text, *run.span()) for run in found)
            if runs:
                for what in _NUMBERS:
                    yield from _matches(runs, what)
        if may_hold_iban:
            yield from _matches(text, "IBAN")
    elif text.count(":") >= 7:
        yield from _matches(text, "IP address")


def _with_plain_digits(text: str) -> str:
    if text.isascii() or not _OTHER_DIGITS.search(text):
        return text
    return text.translate(_PLAIN_DIGITS)


def _around_each(mark: str, text: str) -> str:
    """Only what can belong to an address, so that long texts are not searched from every place."""
    pieces: list[str] = []
    place = text.find(mark)
    while place >= 0 and len(pieces) < 100:
        before = re.split(r"[^A-Za-z0-9._%+-]", text[max(0, place - 65) : place])[-1]
        pieces.append(before + text[place : place + 120].split(maxsplit=1)[0])
        place = text.find(mark, place + 1)
    return "\n".join(pieces)


_NUMBER_RUN = re.compile(r"\d[\d\-. ():]{5,}[\dXx]")


def _with_neighbors(text: str, start: int, stop: int) -> str:
    """A run with what stands around, which tells a number of another kind: a version, a code."""
    start -= text[start - 1 : start] in ("+", "(")
    start -= bool(start) and not text[start - 1].isspace() and text[start - 1] not in ",;"
    stop += not text[stop : stop + 1].isspace() and text[stop : stop + 1] not in (",", ";")
    return text[start:stop]


_MARKS_OF_FAULTS = ("\\", "&#", "```", "<", "[/")  # of those that ASCII text can have
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_SPECIAL = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|begin_of_text"
    r"|end_of_text|assistant|user|system|end)\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<\|endofprompt\|>"
)


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
    if re.fullmatch(r"1[3-9]\d{9}|0\d{9,11}", digits):
        return True  # of China: a mobile number, or one with an area code
    # North America: area code and exchange start with 2 to 9.
    national = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return len(national) == 10 and national[0] in "23456789" and national[3] in "23456789"


def _is_chinese_id(value: str) -> bool:
    if len(value) == 15:  # as given until 1999, without a checksum
        return value[:2] in _PROVINCES and not _is_card(value)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(value, weights, strict=False))
    return "10X98765432"[total % 11] == value[-1].upper()


_PROVINCES = frozenset(
    str(10 * region + number)
    for region, most in enumerate((0, 5, 3, 7, 6, 4, 5, 1, 2))
    for number in range(region in (1, 2, 3, 4, 6, 7, 8), most + 1)
    if most
)


def _is_social_security(value: str) -> bool:
    area, group, serial = value.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_iban(value: str) -> bool:
    plain = value.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    number = "".join(str(int(character, 36)) for character in plain[4:] + plain[:4])
    return int(number) % 97 == 1


# Full-width, Arabic, Persian, Hindi and Thai digits, and what stands between full-width ones.
_ZEROS = (0xFF10, 0x0660, 0x06F0, 0x0966, 0x0E50)
_PLAIN_DIGITS = {zero + digit: str(digit) for zero in _ZEROS for digit in range(10)} | {
    ord(wide): plain for wide, plain in zip("＠＋－（）．　", "@+-(). ", strict=True)
}
_OTHER_DIGITS = re.compile(f"[＠（{''.join(chr(zero) + '-' + chr(zero + 9) for zero in _ZEROS)}]")
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")
# Beside a Han character \b sees no border: letters and digits are what cannot stand there.
_BEFORE, _AFTER = "(?<![A-Za-z0-9_])", "(?![A-Za-z0-9_])"

_PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "e-mail address": (
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@"
            rf"[A-Za-z0-9-]{{1,63}}(?:\.[A-Za-z0-9-]{{1,63}})*\.[A-Za-z]{{2,24}}{_AFTER}"
        ),
        lambda value: (
            not re.search(r"@(?:.*\.)?(?:example\.\w+|\w+\.(?:example|invalid|test))$", value)
        ),
    ),
    "card number": (re.compile(r"(?<![\d.\-])\d(?:[ -]?\d){12,18}(?![\d\-])"), _is_card),
    "IBAN": (
        re.compile(  # the border before it stands behind, so that most places are passed by
            r"[A-Z]{2}\d{2}(?<![A-Za-z0-9_]....)"
            rf"(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_AFTER}"
        ),
        _is_iban,
    ),
    "identity number": (
        re.compile(
            r"(?<!\d)[1-9]\d{5}(?:19|20)?\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}"
            rf"(?:(?<=\d{{17}})[\dXx])?{_AFTER}"
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
            r"|(?<![\d\-.])1[3-9]\d[ \-]?\d{4}[ \-]?\d{4}(?![\d\-])"
            r"|(?<![\d\-.])(?:\(0\d{2,3}\)|0\d{2,3}[ \-])[ \-]?[2-8]\d{6,7}(?![\d\-]|\.\d)"
        ),
        _is_phone,
    ),
    "IP address": (
        re.compile(
            r"(?<![A-Za-z0-9_.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d)"
            r"|(?<![A-Za-z0-9_:])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![A-Za-z0-9_:])"
        ),
        _is_ip,
    ),
}
_NUMBERS = [name for name in _PATTERNS if name not in ("e-mail address", "IBAN")]
