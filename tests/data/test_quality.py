"""Known answers for what is wrong with a text, and for what looks like it."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heldout.data.quality import FindingKind, examine, luhn, masked


def kinds(text):
    return {finding.what for finding in examine(text)}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to john.doe@acme.co.uk today", "e-mail address"),
        ("call +49 30 12345678", "phone number"),
        ("call (212) 555-0147", "phone number"),
        ("手机：13812345678。", "phone number"),
        ("paid with 4111 1111 1111 1111 today", "card number"),
        ("paid with 378282246310005", "card number"),
        ("host 8.8.8.8 answered", "IP address"),
        ("at 2001:4860:4860:0000:0000:0000:0000:8888", "IP address"),
        ("SSN 123-45-6789", "social security number"),
        ("身份证 11010519491231002X", "identity number"),
        ("DE89 3704 0044 0532 0130 00", "IBAN"),
    ],
)
def test_personal_data(text, kind):
    assert kinds(text) == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com",
        "paid with 4111 1111 1111 1112 today",  # the checksum is wrong
        "version 1.2.3.4 of 2021-03-04 12:33:21",
        "192.168.0.1 and 127.0.0.1 and 10.1.2.3",
        "000-12-3456",
        "11010519491231002Y",
        "DE88 3704 0044 0532 0130 00",
        "pi is 3.14159265358979",
        "decorators such as @property and 12 of 1000 rows",
        "",
    ],
)
def test_what_is_no_personal_data(text):
    assert kinds(text) == set()


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("cafÃ© au lait", "encoding", "characters as of UTF-8 read as Latin-1"),
        ("caf\ufffd", "encoding", "a replacement character, where a character was lost"),
        ("a\x00b", "encoding", "a control character"),
        ("```py\nx = 1", "truncated", "a code block that is not closed"),
        ("<|im_start|>user", "template", "the special token <|im_start|> as text"),
    ],
)
def test_faults(text, kind, what):
    assert [(found.kind, found.what) for found in examine(text)] == [(kind, what)]


def test_values_are_masked():
    (found,) = examine("john.doe@acme.org")
    assert "john" not in found.shown
    assert "acme" not in found.shown
    assert masked("4111 1111") == "4**1 1**1"


@given(st.text())
def test_any_text_can_be_examined(text):
    for finding in examine(text):
        assert finding.kind in get_args(FindingKind)
        assert finding.what


@given(st.integers(0, 10**15))
def test_one_digit_of_ten_fits_the_checksum(number):
    assert sum(luhn(f"{number}{digit}") for digit in range(10)) == 1
