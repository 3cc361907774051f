"""Known answers for what is wrong with a text, and for what looks like it."""

import random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heldout.data.quality import FindingKind, examine, examine_all, luhn, masked


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


BESIDE = (
    "证{}号",
    "の{}は",
    "{}입니다",
    "ที่{}ครับ",
    "है {}।",
    "هو {}، نعم",
    "at {}.",
    "“{}”",
    "（{}）",
)


@pytest.mark.parametrize("around", BESIDE)
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("11010519491231002X", "identity number"),
        ("110105491231002", "identity number"),
        ("li.na@acme.com.cn", "e-mail address"),
        ("8.8.4.4", "IP address"),
        ("DE89370400440532013000", "IBAN"),
        ("13812345678", "phone number"),
        ("138 1234 5678", "phone number"),
        ("138-1234-5678", "phone number"),
        ("１３８１２３４５６７８", "phone number"),
        ("١٣٨١٢٣٤٥٦٧٨", "phone number"),
        ("010-62345678", "phone number"),
        ("（021）54321234", "phone number"),
        ("(0571) 87654321", "phone number"),
        ("4111111111111111", "card number"),
    ],
)
def test_personal_data_beside_any_script(around, value, kind):
    assert kinds(around.format(value)) == {kind}


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
        "订单202103041234567890123号，共99010513123100个",
        "身份证990105491231002，110105491331002",
        "第2021-1234-5678期，2021年03月04日 12:33:21",
        "版本1.2.3.4，从2021-03-04 12:33:21到2022-05-06 11:00:00",
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


HELLO = "你好，世界！今天天气很好。"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (HELLO.encode().decode("latin-1"), "characters as of UTF-8 read as Latin-1"),
        ("你好".encode().decode("latin-1"), "characters as of UTF-8 read as Latin-1"),
        ("天天".encode().decode("cp1252"), "characters as of UTF-8 read as Latin-1"),
        ("Привет".encode().decode("latin-1"), "characters as of UTF-8 read as Latin-1"),
        ("नमस्ते".encode().decode("latin-1"), "characters as of UTF-8 read as Latin-1"),
        ("你好世界".encode().decode("gbk"), "characters as of UTF-8 read as GBK"),
        ("天气よい".encode().decode("gb18030"), "characters as of UTF-8 read as GBK"),
        ("안녕하세요안".encode().decode("gb18030"), "characters as of UTF-8 read as GBK"),
        ("ยินดีต้อนรับ".encode().decode("gb18030", "ignore"), "characters as of UTF-8 read as GBK"),
        ("前面锟斤拷后面", "characters as of UTF-8 read as GBK"),
        (r"city: \u5317\u4eac", "escape sequences in place of characters"),
        (r"\xe4\xbd\xa0\xe5\xa5\xbd", "escape sequences in place of characters"),
        ("&#20320;&#22909;", "escape sequences in place of characters"),
    ],
)
def test_text_read_in_the_wrong_encoding(text, what):
    assert kinds(f"{text} x") == {what}


@pytest.mark.parametrize(
    "text",
    [
        HELLO * 20,
        "漢語與傳統文化，龘靐齉爩，鑫淼焱垚",
        "こんにちは、世界。日本語カタカナ",
        "안녕하세요 세계",
        "नमस्ते दुनिया",
        "مرحبا بالعالم",
        "voilà… » «ÉTÉ» déjà—Ça, Spaß« ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ",
        "çağrı ßäöü ñandú",
        r"re.compile('[\u4e00-\u9fff]') and C:\users\x41\x42\x43",
        r"\u0041\u0042 &#65;&#66;",
    ],
)
def test_sound_text_in_any_script(text):
    assert kinds(text) == set()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "gb18030"])
def test_random_chinese_is_no_fault_until_it_is_read_wrongly(encoding):
    rng = random.Random(0)
    rows, cells = range(0xB0, 0xD7), range(0xA1, 0xFE)
    common = [bytes((row, cell)).decode("gb2312") for row in rows for cell in cells]
    for _ in range(200):
        text = "".join(rng.choices(common, k=rng.randint(6, 40)))
        assert kinds(text) == set()
        assert len(kinds(text.encode().decode(encoding, "replace"))) == 1


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


def test_texts_of_a_batch_are_told_apart():
    texts = ["+1 212-555-0123", "", "7\x07", "plain", "浣犲ソ涓枃", "DE89370400440532013000", "ok"]
    alone = [(place, found) for place, text in enumerate(texts) for found in examine(text)]
    assert list(examine_all(texts)) == alone
    assert [(place, found.what) for place, found in alone if found.kind == "personal"] == [
        (0, "phone number"),
        (5, "IBAN"),
    ]
    assert [place for place, found in alone if found.kind == "encoding"] == [2, 4]
